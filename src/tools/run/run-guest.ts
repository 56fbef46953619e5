/** `softkvm run`: checks what the user chose, runs the image, and reports how it ended and what it cost. */
import type { TraceEvent } from '../../kvm/api/index.ts';
import { KvmError } from '../../kvm/api/kvm-error.ts';
import type { Board, BoardVmType } from '../../vmm/board.ts';
import { type CpuFeature, MissingFeature } from '../../vmm/cpu-features.ts';
import type { EndState } from '../../vmm/end-state.ts';
import { ImageError } from '../../vmm/image-error.ts';
import type { MemoryError, PoisonOptions } from '../../vmm/memory-errors.ts';
import type { MemoryFaultMode } from '../../vmm/memory-fault-policy.ts';
import type { PostMortem } from '../../vmm/post-mortem.ts';
import { runImage } from '../../vmm/run-image.ts';
import type { SwapAccount, SwapOptions } from '../../vmm/swap.ts';
import { checkHardware, checkRevision, SILICON } from '../choices.ts';
import { InputError, UnsupportedError } from '../input-error.ts';
import { moduleParams } from '../module-params.ts';

export interface RunOptions {
  /** Name of the image, for messages. */
  readonly file: string;
  readonly image: Uint8Array;
  readonly memoryBytes: number;
  /** 1 if absent. */
  readonly vcpus?: number;
  /** CPUID features that differ from what KVM supports. */
  readonly features?: readonly CpuFeature[];
  /** The date when the machine starts, in seconds since 1970. */
  readonly startSeconds?: number;
  readonly vmType: BoardVmType;
  readonly onMemoryFault: MemoryFaultMode;
  readonly append: string;
  readonly modules: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  /** Module parameters by their kernel names. */
  readonly params: { readonly [name: string]: string };
  readonly hardware?: string;
  readonly revision?: string;
  /** The host keeps some of the guest's memory on a swap device. */
  readonly swap?: SwapOptions;
  /** Frames of the host that fail. */
  readonly poison?: readonly PoisonOptions[];
  readonly maxInstructions?: number;
  readonly timeoutMs?: number;
  readonly interrupted: () => boolean;
  readonly onSerial: (byte: number) => void;
  readonly onTrace?: (event: TraceEvent) => void;
  readonly onBoard?: (board: Board) => void;
}

/** What `softkvm run --json` prints. */
export interface RunReport {
  readonly version: 1;
  readonly image: string;
  readonly hardware: string;
  readonly end: EndState;
  /** Of a guest that could not go on: where it was, the code there, its last exits; else null. */
  readonly postMortem: PostMortem | null;
  readonly instructions: number;
  readonly milliseconds: number;
  /** Exits to userspace by name. */
  readonly exits: { readonly [name: string]: number };
  readonly stats: {
    readonly vm: { readonly [name: string]: number };
    readonly vcpu: { readonly [name: string]: number };
  };
  /** What the host's swapping came to; null without it. */
  readonly swap: SwapAccount | null;
  /** Memory errors of the host that vCPUs met; null when no frame was to fail. */
  readonly memoryErrors: readonly MemoryError[] | null;
  /** What KVM would have logged. */
  readonly log: readonly string[];
  readonly serial: string;
}

/** @throws InputError, UnsupportedError */
export async function runGuest(o: RunOptions): Promise<RunReport> {
  if (o.image.length === 0) throw new InputError(`${o.file}: is empty, expected an image`);
  const { params, onSerial, onBoard, revision, ...rest } = o;
  const hardware = checkHardware(o.hardware ?? SILICON);
  const serial: number[] = [];
  let log: readonly string[] = [];
  let board: Board | null = null;
  const start = performance.now();
  const result = await runImage({
    ...rest,
    hardware,
    params: moduleParams(params),
    ...(revision === undefined ? {} : { revision: checkRevision(revision) }),
    onSerial: (byte) => {
      serial.push(byte);
      onSerial(byte);
    },
    onBoard: (b) => {
      board = b;
      log = [];
      onBoard?.(b);
    },
  }).catch((error: unknown) => {
    if (error instanceof KvmError && error.operation === 'KVM_CREATE_VM') {
      throw new InputError(`--vm-type ${o.vmType}: hardware ${hardware} has no such VMs (${error.message})`);
    }
    if (error instanceof MissingFeature) throw new UnsupportedError(`${error.message} of hardware ${hardware}`);
    throw error instanceof ImageError ? new InputError(error.message) : error;
  });
  if (board !== null) log = (board as Board).vm.state.log.entries.map((e) => `${e.kind}: ${e.where}: ${e.message}`);
  return {
    version: 1,
    image: o.file,
    hardware,
    end: result.end,
    postMortem: result.postMortem,
    instructions: result.instructions,
    milliseconds: performance.now() - start,
    exits: result.exits,
    stats: { vm: result.vmStats, vcpu: result.vcpuStats },
    swap: result.swap,
    memoryErrors: result.memoryErrors,
    log,
    serial: new TextDecoder().decode(Uint8Array.from(serial)),
  };
}
