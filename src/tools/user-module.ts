/** A user's file of TypeScript or JavaScript, loaded here: what it imports of softkvm is the one that runs. */

/** Runs the file. `ours`: modules of this program by the name that the file imports them under. @throws whatever the file throws */
export async function loadUserModule(
  file: string,
  ours: Readonly<Record<string, Record<string, unknown>>>,
): Promise<Readonly<Record<string, unknown>>> {
  const { createJiti } = await import('jiti');
  const jiti = createJiti(file, {
    virtualModules: ours,
    fsCache: false,
    moduleCache: false,
    interopDefault: false,
    tryNative: false,
    transformOptions: { retainLines: true },
  });
  return (await jiti.import(file)) as Readonly<Record<string, unknown>>;
}

/** `12:5`: where in the file something was thrown or could not be read; null when that is not known. */
export function placeIn(file: string, thrown: unknown): string | null {
  const stack = thrown instanceof Error ? (thrown.stack ?? '') : '';
  const at = stack.indexOf(`${file}:`);
  const run = at < 0 ? null : /^:(\d+:\d+)/.exec(stack.slice(at + file.length));
  if (run !== null) return run[1]!;
  // the parser says it at the end of a line of its message
  const lines = String(thrown instanceof Error ? thrown.message : thrown)
    .split('\n')
    .slice(1);
  return lines.map((l) => /:(\d+:\d+)$/.exec(l.trim())?.[1]).find((p) => p !== undefined) ?? null;
}
