/** A guest_memfd as its owner sees it: a file descriptor. */
import { hex } from '../../arch/halves.ts';
import { EBADF } from '../../host/errno.ts';
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, type GuestMemfdFile } from '../guest-memfd/guest-memfd.ts';
import { check } from './kvm-error.ts';

/** Offsets and sizes of files are signed. */
const signed = (n: number | bigint): bigint => BigInt.asIntN(64, BigInt(n));

/** A guest_memfd file descriptor. Made by Vm.createGuestMemfd. */
export class GuestMemfd {
  /** The file behind the descriptor, for tools. */
  readonly file: GuestMemfdFile;

  constructor(file: GuestMemfdFile) {
    this.file = file;
  }

  private open(operation: string): GuestMemfdFile {
    if (this.file.closed) check(-EBADF, operation, 'closed');
    return this.file;
  }

  /**
   * fallocate(2). `mode`: FALLOC_FL_KEEP_SIZE (1) allocates, with FALLOC_FL_PUNCH_HOLE (2) frees.
   * @throws KvmError EINVAL: unaligned, empty, or allocation beyond the end; EOPNOTSUPP: mode; EFBIG; ENOMEM; EBADF: closed
   * @kvm guest_memfd.c kvm_gmem_fallocate
   */
  fallocate(mode: number, offset: number | bigint, size: number | bigint): void {
    const result = this.open('fallocate').fallocate(mode, signed(offset), signed(size));
    check(result, 'fallocate', `mode ${mode}, offset ${hex(offset)}, size ${hex(size)}`);
  }

  /** Frees the pages of a range; private mappings of them go first. Errors as `fallocate`. */
  punchHole(offset: number | bigint, size: number | bigint): void {
    this.fallocate(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, size);
  }

  /** Allocates the pages of a range. Errors as `fallocate`. */
  allocate(offset: number | bigint, size: number | bigint): void {
    this.fallocate(FALLOC_FL_KEEP_SIZE, offset, size);
  }

  /** ftruncate(2). @throws KvmError EINVAL always: the size is fixed; EBADF: closed */
  ftruncate(size: number | bigint): void {
    check(this.open('ftruncate').truncate(), 'ftruncate', `size ${hex(size)}`);
  }

  /** mmap(2). @throws KvmError ENODEV always; EBADF: closed */
  mmap(): void {
    check(this.open('mmap').mmap(), 'mmap');
  }

  /** pread(2). @throws KvmError ESPIPE always; EBADF: closed */
  pread(): void {
    check(this.open('pread').pread(), 'pread');
  }

  /** fstat(2): size in bytes, and blocks, which are not counted. @throws KvmError EBADF: closed */
  stat(): { size: number; blocks: number } {
    return this.open('fstat').stat();
  }

  /** close(2) of the only descriptor: bound slots lose their private memory. @throws KvmError EBADF: closed before */
  close(): void {
    this.open('close').release();
  }
}
