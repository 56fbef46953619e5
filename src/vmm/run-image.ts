/** `softkvm run`: one image on one machine, from load to end state. */
import { Kvm, type TraceEvent } from '../kvm/api/index.ts';
import type { KvmParams } from '../kvm/params.ts';
import { Board, type BoardVmType } from './board.ts';
import type { CpuFeature } from './cpu-features.ts';
import type { EndState } from './end-state.ts';
import { ImageError } from './image-error.ts';
import { firmwareImage } from './launch-tdx.ts';
import { loadImage } from './loaders/load.ts';
import { type MemoryError, MemoryErrors, type PoisonOptions } from './memory-errors.ts';
import type { MemoryFaultMode } from './memory-fault-policy.ts';
import type { PostMortem } from './post-mortem.ts';
import { RunLoop } from './run-loop.ts';
import { limitMemory, type SwapAccount, type SwapOptions, startSwap, swapAccount } from './swap.ts';

const MIB = 1024 * 1024;
/** WebAssembly memory ends just below 4 GiB; what the processor and the host keep for themselves comes off that. */
const HOST_LIMIT = 4096 * MIB - 65536;
const HOST_OVERHEAD = 128 * MIB;

export interface RunImageOptions {
  /** Name of the image, for messages and the guest's command line. */
  readonly file: string;
  readonly image: Uint8Array;
  /** RAM in bytes; 128 MiB if absent. */
  readonly memoryBytes?: number;
  /** 1 if absent. */
  readonly vcpus?: number;
  /** CPUID features that differ from what KVM supports. */
  readonly features?: readonly CpuFeature[];
  /** The date when the machine starts, in seconds since 1970; the beginning of 2025 if absent. */
  readonly startSeconds?: number;
  readonly vmType?: BoardVmType;
  readonly append?: string;
  readonly modules?: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  readonly hardware?: string;
  readonly params?: Partial<KvmParams>;
  readonly revision?: string;
  /** What to do about KVM_EXIT_MEMORY_FAULT; `convert` if absent. */
  readonly onMemoryFault?: MemoryFaultMode;
  /** The host keeps some of the guest's memory on a swap device; all of it is in memory if absent. */
  readonly swap?: SwapOptions;
  /** Frames of the host that fail. */
  readonly poison?: readonly PoisonOptions[];
  readonly maxInstructions?: number;
  readonly timeoutMs?: number;
  readonly interrupted?: () => boolean;
  readonly onSerial: (byte: number) => void;
  readonly onTrace?: (event: TraceEvent) => void;
  /** Is given the board before the guest starts: to feed its serial port, to add devices, to look inside. */
  readonly onBoard?: (board: Board) => void;
}

export interface RunImageResult {
  readonly end: EndState;
  /** Of a guest that could not go on. */
  readonly postMortem: PostMortem | null;
  readonly instructions: number;
  /** Exits to the VMM, by reason. */
  readonly exits: Readonly<Record<string, number>>;
  readonly vmStats: Readonly<Record<string, number>>;
  /** Of all vCPUs together. */
  readonly vcpuStats: Readonly<Record<string, number>>;
  /** What swapping came to; null without it. */
  readonly swap: SwapAccount | null;
  /** Memory errors that vCPUs met; null when no frame was to fail. */
  readonly memoryErrors: readonly MemoryError[] | null;
}

/** Host memory that a guest of this size needs, in bytes; throws ImageError when a machine cannot have so much. */
function hostMemoryFor(file: string, memoryBytes: number, vmType: BoardVmType, resident: number): number {
  if (memoryBytes < MIB || memoryBytes % 4096 !== 0) {
    throw new ImageError(file, `memory of ${memoryBytes} bytes: expected whole pages, at least 1 MiB`);
  }
  const copies = vmType === 'default' ? 1 : 2;
  // guest_memfd's pages do not go to swap.
  const wanted = resident + memoryBytes * (copies - 1) + HOST_OVERHEAD;
  if (wanted > HOST_LIMIT) {
    const limit = Math.floor((HOST_LIMIT - HOST_OVERHEAD) / copies / MIB);
    throw new ImageError(file, `memory of ${memoryBytes / MIB} MiB: a ${vmType} VM can have at most ${limit} MiB`);
  }
  return Math.ceil(wanted / 65536) * 65536;
}

/** Loads and runs; throws ImageError for an image (or a size) that cannot be used. */
export async function runImage(options: RunImageOptions): Promise<RunImageResult> {
  const { file, memoryBytes = 128 * MIB, vmType = 'default' } = options;
  const resident = options.swap === undefined ? memoryBytes : Math.min(memoryBytes, options.swap.residentBytes);
  const hostMemory = hostMemoryFor(file, memoryBytes, vmType, resident);
  const image =
    vmType === 'tdx'
      ? firmwareImage(file, options.image)
      : loadImage(options.image, {
          file,
          memoryBytes,
          append: options.append ?? '',
          modules: options.modules ?? [],
        });
  const kvm = new Kvm({
    hostMemory,
    ...(options.hardware === undefined ? {} : { hardware: options.hardware }),
    ...(options.params === undefined ? {} : { params: options.params }),
    ...(options.revision === undefined ? {} : { revision: options.revision }),
  });
  if (options.swap !== undefined) limitMemory(kvm, options.swap);
  const { vcpus = 1, features = [], onSerial, startSeconds } = options;
  const start = startSeconds === undefined ? {} : { startSeconds };
  const board = new Board({ kvm, vmType, memoryBytes, vcpus, features, onSerial, pc: true, ...start });
  board.load(image);
  if (options.swap !== undefined) startSwap(board, options.swap);
  if (options.poison !== undefined) {
    board.memoryErrors = new MemoryErrors(board);
    for (const frame of options.poison) {
      if (board.hvaOf(frame.gpa) === null)
        throw new ImageError(file, `no memory at 0x${frame.gpa.toString(16)} to fail`);
      board.memoryErrors.schedule(frame);
    }
  }
  if (options.onTrace !== undefined) board.vm.onTrace(options.onTrace);
  options.onBoard?.(board);
  const loop = new RunLoop(board, {
    onMemoryFault: options.onMemoryFault ?? 'convert',
    ...(options.maxInstructions === undefined ? {} : { maxInstructions: options.maxInstructions }),
    ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    ...(options.interrupted === undefined ? {} : { interrupted: options.interrupted }),
  });
  const end = await loop.run();
  const result = {
    end,
    postMortem: loop.postMortem(end),
    instructions: loop.instructions,
    exits: Object.fromEntries(loop.exits),
    vmStats: board.vm.stats(),
    vcpuStats: sum(board.vcpus.map((vcpu) => vcpu.stats())),
    swap: options.swap === undefined ? null : swapAccount(board),
    memoryErrors: board.memoryErrors?.met ?? null,
  };
  board.vm.close();
  return result;
}

/** Statistics added up by name. */
function sum(stats: readonly Record<string, number>[]): Record<string, number> {
  const total: Record<string, number> = {};
  for (const one of stats) for (const [name, n] of Object.entries(one)) total[name] = (total[name] ?? 0) + n;
  return total;
}
