/** From instruction bytes to a row of the encoding table and the fields of a record. Pure: no memory, no state. */
import { CS, DS, ES, FS, GS, RBP, RBX, RDI, RSI, RSP, SS } from '../../arch/registers.ts';
import { unreachable } from '../../arch/unreachable.ts';
import type { Encoding } from '../isa/encoding.ts';
import { MAP_VEX } from '../isa/encoding.ts';
import type { Feature } from '../isa/features.ts';
import { encodingsOf } from '../isa/table.ts';
import {
  BASE_RIP,
  RECORD_HAS_LOCK,
  RECORD_HAS_MEMORY,
  RECORD_HAS_OPERAND_SIZE,
  RECORD_HAS_REP,
  RECORD_HAS_REPNE,
  RECORD_HAS_REX_W,
  RECORD_HAS_SEGMENT,
  REGISTER_NONE,
} from './record.ts';

/** `decode` answers: an instruction, no such instruction (#UD), or more bytes wanted than there are. */
export const DECODE_OK = 0;
export const DECODE_INVALID = 1;
export const DECODE_MORE = 2;

/** Longest instruction, in bytes. */
export const MAX_LENGTH = 15;

const base16 = [RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX] as const;
const index16 = [RSI, RDI, RSI, RDI, -1, -1, -1, -1] as const;

/** Decodes one instruction at a time; the fields hold the last one. Register fields are byte offsets, as in records. */
export class Decoder {
  row: Encoding | undefined;
  private readonly absent: ReadonlySet<Feature>;
  length = 0;
  operandSize = 0;
  addressSize = 0;
  mode = 0;
  reg = 0;
  rm = 0;
  base = 0;
  index = 0;
  scale = 0;
  segment = 0;
  flags = 0;
  vvvv = 0;
  /** The displacement is counted from the end of the instruction until `decode` returns. */
  dispLo = 0;
  dispHi = 0;
  immLo = 0;
  immHi = 0;
  imm2 = 0;

  /** @param absent extensions whose encodings do not exist */
  constructor(absent: ReadonlySet<Feature> = new Set()) {
    this.absent = absent;
  }

  private bytes: Uint8Array = new Uint8Array(0);
  private start = 0;
  private at = 0;
  private end = 0;
  private short = false;
  private rex = 0;
  private vexL = 0;
  /** VEX.vvvv as it stands, inverted: unused it is 0 in every mode. */
  private vexV = 0;
  private vexW = 0;
  private byteRegistersNew = false;

  private u8(): number {
    if (this.at >= this.end) {
      this.short = true;
      return 0;
    }
    return this.bytes[this.at++]!;
  }
  private u16(): number {
    const low = this.u8();
    return low | (this.u8() << 8);
  }
  private i32(): number {
    const low = this.u16();
    return low | (this.u16() << 16);
  }

  /**
   * Decodes the bytes from `start` to `end` of `bytes` as code of `mode` (0, 1, 2: 16, 32, 64 bits).
   * @returns DECODE_OK, DECODE_INVALID or DECODE_MORE
   */
  decode(bytes: Uint8Array, start: number, end: number, mode: number): number {
    this.bytes = bytes;
    this.start = start;
    this.at = start;
    this.end = Math.min(end, start + MAX_LENGTH);
    this.short = false;
    this.mode = mode;
    this.row = undefined;
    this.reg = this.rm = this.scale = this.vvvv = this.flags = this.rex = 0;
    this.base = this.index = REGISTER_NONE;
    this.dispLo = this.dispHi = this.immLo = this.immHi = this.imm2 = 0;
    const status = this.instruction();
    if (this.short) return DECODE_MORE;
    this.length = this.at - start;
    if (status !== DECODE_OK) return status;
    if (this.base === BASE_RIP) this.addLengthToDisplacement();
    return DECODE_OK;
  }

  private addLengthToDisplacement(): void {
    const sum = (this.dispLo >>> 0) + this.length;
    this.dispLo = sum | 0;
    if (sum > 0xffffffff) this.dispHi = (this.dispHi + 1) | 0;
  }

  private instruction(): number {
    const long = this.mode === 2;
    let segment = -1;
    let mandatory = 0; // the last F3 or F2
    let opcode: number;
    for (;;) {
      opcode = this.u8();
      if (this.short) return DECODE_MORE;
      if (opcode === 0x66) this.flags |= RECORD_HAS_OPERAND_SIZE;
      else if (opcode === 0xf2 || opcode === 0xf3) mandatory = opcode;
      else if (opcode === 0xf0) this.flags |= RECORD_HAS_LOCK;
      else if (opcode === 0x64) segment = FS;
      else if (opcode === 0x65) segment = GS;
      else if (opcode === 0x26 || opcode === 0x2e || opcode === 0x36 || opcode === 0x3e) {
        if (!long) segment = opcode === 0x26 ? ES : opcode === 0x2e ? CS : opcode === 0x36 ? SS : DS;
      } else if (opcode === 0x67) this.flags |= ADDRESS_SIZE;
      else if (long && (opcode & 0xf0) === 0x40) {
        // A REX prefix counts only right before the opcode.
        this.rex = opcode;
        const next = this.u8();
        this.at--;
        if (this.short) return DECODE_MORE;
        if (isPrefix(next)) this.rex = 0;
      } else break;
    }
    if (mandatory === 0xf3) this.flags |= RECORD_HAS_REP;
    if (mandatory === 0xf2) this.flags |= RECORD_HAS_REPNE;
    const otherAddress = (this.flags & ADDRESS_SIZE) !== 0;
    this.flags &= ~ADDRESS_SIZE;
    this.addressSize = long ? (otherAddress ? 4 : 8) : (this.mode === 1) !== otherAddress ? 4 : 2;
    this.byteRegistersNew = this.rex !== 0;

    let map = 0;
    if ((opcode === 0xc4 || opcode === 0xc5) && (long || (this.peek() & 0xc0) === 0xc0)) {
      map = this.vex(opcode, mandatory);
      if (map < 0) return DECODE_INVALID;
      opcode = this.u8();
    } else if (opcode === 0x0f) {
      map = 1;
      opcode = this.u8();
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? 2 : 3;
        opcode = this.u8();
      }
    }
    if (this.short) return DECODE_MORE;
    if ((this.rex & 8) !== 0) this.flags |= RECORD_HAS_REX_W;
    return this.select(map, opcode, segment);
  }

  private peek(): number {
    const byte = this.u8();
    if (!this.short) this.at--;
    return byte;
  }

  /** The rest of a VEX prefix: its map, or -1. REX bits and the mandatory prefix go where the legacy ones are. */
  private vex(first: number, mandatory: number): number {
    if (this.rex !== 0 || mandatory !== 0 || (this.flags & (RECORD_HAS_OPERAND_SIZE | RECORD_HAS_LOCK)) !== 0)
      return -1;
    const a = this.u8();
    const b = first === 0xc4 ? this.u8() : a;
    const long = this.mode === 2;
    let map = 1;
    this.vexW = 0;
    this.vexL = (b >> 2) & 1;
    this.rex = 0x40 | (long && (a & 0x80) === 0 ? 4 : 0);
    if (first === 0xc4) {
      map = a & 0x1f;
      if (long) this.rex |= ((a & 0x40) === 0 ? 2 : 0) | ((a & 0x20) === 0 ? 1 : 0);
      this.vexW = b >> 7;
      if (long && this.vexW !== 0) this.rex |= 8;
    }
    if (map < 1 || map > 3) return -1;
    this.vexV = (~b >> 3) & 15;
    this.vvvv = (((~b >> 3) & (long ? 15 : 7)) << 3) | 0;
    const pp = b & 3;
    if (pp === 1) this.flags |= RECORD_HAS_OPERAND_SIZE;
    if (pp === 2) this.flags |= RECORD_HAS_REP;
    if (pp === 3) this.flags |= RECORD_HAS_REPNE;
    return MAP_VEX + map;
  }

  private select(map: number, opcode: number, segment: number): number {
    const rows = encodingsOf(map, opcode);
    if (rows.length === 0) return DECODE_INVALID;
    const long = this.mode === 2;
    const modrm = rows.some((r) => r.hasModrm) ? this.peek() : 0;
    if (this.short) return DECODE_MORE;
    const memory = modrm < 0xc0;
    const digit = (modrm >> 3) & 7;
    const row = rows.find(
      (r) =>
        prefixFits(r.prefix, this.flags) &&
        !this.absent.has(r.feature) &&
        (map < MAP_VEX || ((r.l < 0 || r.l === this.vexL) && (r.w < 0 || r.w === this.vexW))) &&
        (r.digit < 0 || r.digit === digit) &&
        (r.literal < 0 || r.literal === (r.options.has('fence') ? modrm & 0xf8 : modrm)) &&
        (r.form === 'any' || r.options.has('modreg') || (r.form === 'memory') === memory || !r.hasModrm) &&
        !r.options.has(long ? 'i64' : 'o64') &&
        !(r.options.has('norexb') && (this.rex & 1) !== 0),
    );
    if (row === undefined) return DECODE_INVALID;
    // VEX.vvvv without a use is 1111.
    if (map >= MAP_VEX && this.vexV !== 0 && !row.operands.some((o) => o.place === 'vvvv')) return DECODE_INVALID;
    this.row = row;
    this.setSizes(row);
    if (row.regValue !== undefined) this.reg = row.regValue << 3;
    if (row.hasModrm) {
      this.at++;
      const status = this.modrm(row, modrm);
      if (status !== DECODE_OK) return status;
    } else if (row.span === 8) {
      this.rm = this.register((opcode & 7) | ((this.rex & 1) << 3), row);
    }
    this.operands(row);
    if (row.options.has('vsib') && this.gatherClashes()) return DECODE_INVALID;
    if (row.meaning.kind === 'string' || row.options.has('xlat') || row.options.has('rdi')) this.impliedMemory(row);
    if ((this.flags & RECORD_HAS_LOCK) !== 0 && !(row.options.has('lock') && (this.flags & RECORD_HAS_MEMORY) !== 0)) {
      return DECODE_INVALID;
    }
    const stack = this.base === RSP * 8 || this.base === RBP * 8;
    this.segment = segment >= 0 ? segment : stack ? SS : DS;
    if (segment >= 0) this.flags |= RECORD_HAS_SEGMENT;
    return DECODE_OK;
  }

  private setSizes(row: Encoding): void {
    const { options } = row;
    const other = (this.flags & RECORD_HAS_OPERAND_SIZE) !== 0 && !options.has('noopsize') && row.prefix !== '66';
    if (row.size !== 0) {
      this.operandSize = row.size;
      return;
    }
    if (this.mode !== 2) {
      this.operandSize = options.has('noopsize') || (this.mode === 1) !== other ? 4 : 2;
    } else if (options.has('f64') || (this.rex & 8) !== 0) {
      this.operandSize = 8;
    } else {
      this.operandSize = other ? 2 : options.has('d64') ? 8 : 4;
    }
    if (row.atLeast4 && this.operandSize === 2) this.operandSize = 4;
    if (options.has('port') && this.operandSize === 8) this.operandSize = 4;
  }

  /** Gathers refuse to have one register twice among destination, mask and index. */
  private gatherClashes(): boolean {
    return this.reg === this.vvvv || this.reg === this.imm2 || this.vvvv === this.imm2;
  }

  /** Byte offset of general register `number`; a legacy byte register 4 to 7 is AH to BH. */
  private register(number: number, row: Encoding, place: 'rm' | 'reg' = 'rm'): number {
    const operand = row.operands.find((o) => o.place === place);
    const isByte = operand !== undefined && operand.file === 'gpr' && operand.size === 1;
    if (isByte && !this.byteRegistersNew && number >= 4) return (number - 4) * 8 + 1;
    return number << 3;
  }

  private modrm(row: Encoding, modrm: number): number {
    const reg = (modrm >> 3) & 7;
    const { options } = row;
    const extended = reg | ((this.rex & 4) << 1);
    const mmx = row.operands.some((o) => o.place === 'reg' && o.file === 'mmx');
    if (row.regValue === undefined) this.reg = mmx ? reg << 3 : this.register(extended, row, 'reg');
    if (options.has('sreg')) {
      if (reg > 5 || (options.has('notcs') && reg === CS)) return DECODE_INVALID;
      this.reg = reg << 3;
    }
    if (options.has('cr') && ![0, 2, 3, 4, 8].includes(extended)) return DECODE_INVALID;
    if (options.has('dr') && extended > 7) return DECODE_INVALID;
    const rm = modrm & 7;
    if (modrm >= 0xc0 || options.has('modreg')) {
      const mmxRm = row.operands.some((o) => o.place === 'rm' && o.file === 'mmx');
      this.rm = mmxRm ? rm << 3 : this.register(rm | ((this.rex & 1) << 3), row);
      return DECODE_OK;
    }
    this.flags |= RECORD_HAS_MEMORY;
    const vsib = options.has('vsib');
    if (vsib && (this.addressSize === 2 || rm !== 4)) return DECODE_INVALID;
    if (this.addressSize === 2) this.address16(modrm >> 6, rm);
    else this.address(modrm >> 6, rm, vsib);
    return DECODE_OK;
  }

  private displacement(bytes: number): void {
    if (bytes === 0) return;
    this.dispLo = bytes === 1 ? (this.u8() << 24) >> 24 : bytes === 2 ? (this.u16() << 16) >> 16 : this.i32();
    this.dispHi = this.dispLo >> 31;
  }
  private address16(mod: number, rm: number): void {
    if (mod === 0 && rm === 6) {
      this.displacement(2);
      return;
    }
    this.base = base16[rm]! << 3;
    if (index16[rm]! >= 0) this.index = index16[rm]! << 3;
    this.displacement(mod);
  }
  private address(mod: number, rm: number, vsib: boolean): void {
    let disp = mod === 1 ? 1 : mod === 2 ? 4 : 0;
    if (rm === 4) {
      const sib = this.u8();
      this.scale = sib >> 6;
      const index = ((sib >> 3) & 7) | ((this.rex & 2) << 2);
      if (vsib) this.imm2 = index << 3;
      else if (index !== 4) this.index = index << 3;
      if ((sib & 7) === 5 && mod === 0) disp = 4;
      else this.base = ((sib & 7) | ((this.rex & 1) << 3)) << 3;
    } else if (rm === 5 && mod === 0) {
      disp = 4;
      if (this.mode === 2) this.base = BASE_RIP;
    } else {
      this.base = (rm | ((this.rex & 1) << 3)) << 3;
    }
    this.displacement(disp);
  }

  private operands(row: Encoding): void {
    if (row.immValue !== undefined) this.immLo = row.immValue;
    let first = true;
    for (const o of row.operands) {
      if (o.text[0] === 'O') {
        this.flags |= RECORD_HAS_MEMORY;
        this.dispLo = this.addressSize === 2 ? this.u16() : this.i32();
        this.dispHi = this.addressSize === 8 ? this.i32() : 0;
      }
      if (o.text[0] === 'L') this.imm2 = (this.u8() >> 1) & (this.mode === 2 ? 0x78 : 0x38);
      if (o.immediate === 0) continue;
      const size =
        o.immediate > 0 ? o.immediate : this.operandSize === 2 ? 2 : o.immediate === -2 ? this.operandSize : 4;
      const low = size === 1 ? this.u8() : size === 2 ? this.u16() : this.i32();
      if (!first) {
        this.imm2 = low;
        continue;
      }
      first = false;
      const shift = o.unsigned ? 0 : 32 - Math.min(size, 4) * 8;
      this.immLo = (low << shift) >> shift;
      this.immHi = size === 8 ? this.i32() : o.unsigned ? 0 : this.immLo >> 31;
      if (o.place === 'far') this.imm2 = this.u16();
    }
    if (row.operands.some((o) => o.place === 'rel')) this.relativeTarget();
  }

  /** Makes the immediate of a relative branch count from the instruction's first byte; it is the last field, so the length is known. */
  private relativeTarget(): void {
    const sum = (this.immLo >>> 0) + (this.at - this.start);
    this.immLo = sum | 0;
    if (sum > 0xffffffff) this.immHi = (this.immHi + 1) | 0;
  }

  private impliedMemory(row: Encoding): void {
    this.flags |= RECORD_HAS_MEMORY;
    if (row.options.has('xlat')) this.base = RBX << 3;
    if (row.options.has('rdi')) this.base = RDI << 3;
  }
}

/** 67 prefix while prefixes are read; it ends in the address size. */
const ADDRESS_SIZE = 1 << 8;

const isPrefix = (byte: number): boolean =>
  (byte & 0xf0) === 0x40 ||
  byte === 0x66 ||
  byte === 0x67 ||
  byte === 0xf0 ||
  byte === 0xf2 ||
  byte === 0xf3 ||
  byte === 0x64 ||
  byte === 0x65 ||
  byte === 0x26 ||
  byte === 0x2e ||
  byte === 0x36 ||
  byte === 0x3e; // prettier-ignore

function prefixFits(prefix: Encoding['prefix'], flags: number): boolean {
  const repeat = flags & (RECORD_HAS_REP | RECORD_HAS_REPNE);
  switch (prefix) {
    case '':
      return true;
    case 'NP':
      return repeat === 0 && (flags & RECORD_HAS_OPERAND_SIZE) === 0;
    case 'NR':
      return repeat === 0;
    case '66':
      return repeat === 0 && (flags & RECORD_HAS_OPERAND_SIZE) !== 0;
    case 'F3':
      return repeat === RECORD_HAS_REP;
    case 'F2':
      return repeat === RECORD_HAS_REPNE;
    default:
      return unreachable(prefix);
  }
}
