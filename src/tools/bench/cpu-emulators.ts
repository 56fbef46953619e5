/** The emulators that run the benchmark guest: softkvm with either engine, and the peers that are installed. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { COMPILED, defaultEngine, type Engine, INTERPRETER, setDefaultEngine } from '../../cpu/compiler/engine.ts';
import { runGuest } from '../run/run-guest.ts';
import { cpuGuestDisk, type GuestBits } from './cpu-guest.ts';

export type EmulatorName = 'interpreter' | 'compiled' | 'qemu' | 'bochs' | 'v86';

export interface Emulator {
  readonly name: EmulatorName;
  /** What it is, with its version; null when it is not installed. */
  readonly version: string | null;
  readonly bits: readonly GuestBits[];
  /** Its compiler works in the background: short runs say little. */
  readonly warmsUp?: true;
  /** Runs a guest to its end; `onByte` gets what it writes to its serial port, as it comes. */
  run(guest: Uint8Array, onByte: (byte: number) => void): Promise<void>;
}

const MEMORY_MIB = 64;
/** Longest time for one run. */
const TIMEOUT = 120_000;

const softkvm = (name: 'interpreter' | 'compiled', engine: Engine): Emulator => ({
  name,
  version: `softkvm, ${name === 'compiled' ? 'compiled code' : 'interpreter'}`,
  bits: [64, 32],
  run: async (guest, onByte) => {
    const before = defaultEngine();
    setDefaultEngine(engine);
    try {
      await runGuest({
        file: 'bench.bin',
        image: guest,
        memoryBytes: MEMORY_MIB << 20,
        vmType: 'default',
        onMemoryFault: 'convert',
        append: '',
        modules: [],
        params: {},
        timeoutMs: TIMEOUT,
        interrupted: () => false,
        onSerial: onByte,
      });
    } finally {
      setDefaultEngine(before);
    }
  },
});

/** First line of what a program says about itself; null when it is not there. */
function firstLine(command: string, ...args: string[]): string | null {
  const { error, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 });
  if (error !== undefined) return null;
  return `${stdout}\n${stderr}`.split('\n').find((line) => /[0-9]\.[0-9]/.test(line)) ?? command;
}

/** Runs a program in a folder of its own that holds `files`; its standard output, or the file `output`, is the serial port. */
async function runProgram(
  command: readonly string[],
  files: { readonly [name: string]: Uint8Array | string },
  onByte: (byte: number) => void,
  output?: string,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'softkvm-bench-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    if (output !== undefined) spawnSync('mkfifo', [join(folder, output)]);
    const [program, ...args] = command;
    const quiet = output === undefined ? 'pipe' : 'ignore';
    const child = spawn(program!, args, { cwd: folder, stdio: ['ignore', quiet, 'ignore'], timeout: TIMEOUT });
    const reader =
      output === undefined ? null : spawn('cat', [output], { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'] });
    const listen = (chunk: Uint8Array): void => {
      for (const byte of chunk) onByte(byte);
    };
    (reader ?? child).stdout!.on('data', listen);
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', () => resolve());
    });
    reader?.kill();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function qemu(): Emulator {
  const machine = ['-accel', 'tcg', '-m', `${MEMORY_MIB}`, '-nodefaults', '-vga', 'none', '-display', 'none'];
  const devices = ['-serial', 'stdio', '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-no-reboot'];
  return {
    name: 'qemu',
    version: firstLine('qemu-system-x86_64', '--version'),
    bits: [64, 32],
    run: (guest, onByte) =>
      runProgram(['qemu-system-x86_64', ...machine, '-cpu', 'max', ...devices, '-kernel', 'guest'], { guest }, onByte),
  };
}

const BOCHS_SHARE = '/usr/share/bochs';
const BOCHS_CONFIGURATION = [
  `memory: guest=${MEMORY_MIB}, host=${MEMORY_MIB}`,
  `romimage: file=${BOCHS_SHARE}/BIOS-bochs-latest`,
  `vgaromimage: file=${BOCHS_SHARE}/VGABIOS-lgpl-latest`,
  'ata0-master: type=disk, path="disk", mode=flat, cylinders=20, heads=16, spt=63',
  'boot: disk',
  'log: log',
  'display_library: term',
  'com1: enabled=1, mode=file, dev=serial',
  'sound: driver=dummy',
  'panic: action=fatal',
  'cpu: model=corei7_haswell_4770, ips=50000000',
  '',
].join('\n');

/** Debian's Bochs has its debugger built in, and a text interface that needs a terminal: `script` makes one. */
function bochs(): Emulator {
  const there = existsSync(`${BOCHS_SHARE}/BIOS-bochs-latest`) && firstLine('script', '--version') !== null;
  return {
    name: 'bochs',
    version: there ? (firstLine('dpkg-query', '-W', 'bochs')?.replace('\t', ' ') ?? null) : null,
    bits: [64, 32],
    run: (guest, onByte) =>
      runProgram(
        ['env', 'TERM=xterm', 'script', '-qfc', 'bochs -q -f configuration -rc commands', '/dev/null'],
        { disk: cpuGuestDisk(guest), configuration: BOCHS_CONFIGURATION, commands: 'c\nq\n' },
        onByte,
        'serial',
      ),
  };
}

const V86_SCRIPT = `
import { readFileSync, writeSync } from 'node:fs';
const [build, guest] = process.argv.slice(2);
const { V86 } = await import(build + '/libv86.mjs');
const emulator = new V86({
  wasm_path: new URL(build + '/v86.wasm').pathname,
  memory_size: ${MEMORY_MIB} << 20,
  multiboot: { buffer: new Uint8Array(readFileSync(guest)).buffer },
  autostart: true,
  disable_keyboard: true,
  disable_mouse: true,
  disable_speaker: true,
});
emulator.add_listener('serial0-output-byte', (byte) => {
  writeSync(1, Uint8Array.of(byte));
  if (byte === 0x21) process.exit(0);
});
`;

/** v86 from a folder with node_modules: the current one, or what V86_FOLDER names. */
function v86(): Emulator {
  let build: string | null = null;
  let version: string | null = null;
  try {
    const require = createRequire(join(process.env['V86_FOLDER'] ?? process.cwd(), 'anything.js'));
    const description = require.resolve('v86/package.json');
    build = pathToFileURL(join(dirname(description), 'build')).href;
    version = `v86 ${(JSON.parse(readFileSync(description, 'utf8')) as { version: string }).version}`;
  } catch {
    // Not installed.
  }
  return {
    name: 'v86',
    version,
    bits: [32],
    warmsUp: true,
    run: (guest, onByte) =>
      runProgram([process.execPath, 'v86.mjs', build!, 'guest'], { guest, 'v86.mjs': V86_SCRIPT }, onByte),
  };
}

/** softkvm's engines, and the peers whether installed or not. */
export const emulators = (): readonly Emulator[] => [
  softkvm('interpreter', INTERPRETER),
  softkvm('compiled', COMPILED),
  qemu(),
  bochs(),
  v86(),
];
