/** Type errors of a user's file, when there is a TypeScript compiler to find them. */
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import type ts from 'typescript';

/** What the compiler found, one line each; null when there is no compiler. */
export function typeErrors(file: string, ourRoot: string, fromSource: boolean): string[] | null {
  const compiler = findCompiler([join(dirname(file), '_'), join(process.cwd(), '_'), join(ourRoot, '_')]);
  if (compiler === null) return null;
  const program = compiler.createProgram([file], {
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    allowJs: true,
    allowImportingTsExtensions: true,
    target: compiler.ScriptTarget.ES2023,
    lib: ['lib.es2023.d.ts', 'lib.dom.d.ts'],
    module: compiler.ModuleKind.NodeNext,
    moduleResolution: compiler.ModuleResolutionKind.NodeNext,
    moduleDetection: compiler.ModuleDetectionKind.Force,
    types: [],
    paths: { softkvm: [join(ourRoot, fromSource ? 'src/index.ts' : 'dist/index.d.ts')] },
  });
  const ours = join(ourRoot, fromSource ? 'src' : 'dist');
  const theirs = program
    .getSourceFiles()
    .filter(
      (f) =>
        !program.isSourceFileDefaultLibrary(f) &&
        !f.fileName.startsWith(ours) &&
        !f.fileName.includes('/node_modules/'),
    );
  return theirs
    .flatMap((f) => [...program.getSyntacticDiagnostics(f), ...program.getSemanticDiagnostics(f)])
    .map((d) => line(compiler, d));
}

function line(compiler: typeof ts, d: ts.Diagnostic): string {
  const text = compiler.flattenDiagnosticMessageText(d.messageText, ' ').replace(/\s+/g, ' ');
  if (d.file === undefined || d.start === undefined) return text;
  const at = d.file.getLineAndCharacterOfPosition(d.start);
  return `${shortPath(d.file.fileName)}:${at.line + 1}:${at.character + 1}: ${text}`;
}

/** As the user would name it: from the current folder, where that is shorter. */
function shortPath(file: string): string {
  const near = relative(process.cwd(), file);
  return near.length < file.length && !near.startsWith('../../') ? near : file;
}

/** The first `typescript` that can be found from these places and has the compiler's API (its later native releases do not). */
function findCompiler(places: readonly string[]): typeof ts | null {
  for (const place of places) {
    try {
      const found = createRequire(place)('typescript') as typeof ts;
      if (typeof found.createProgram === 'function') return found;
    } catch {
      // Not there: the next place.
    }
  }
  return null;
}
