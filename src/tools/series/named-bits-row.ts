/** Row 3: names for bits of the #NPF code that no check looks at yet. Whoever reads a code sees them; the fault path does not. */
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { decodeCode } from '../decode/decode.ts';
import type { Demonstration, DemonstrationCase, Side } from './demonstration.ts';

/** An SNP guest's write with the C-bit set, refused by the RMP check for its VMPL. */
const CODE = 0x15_8000_0007n;
const SEV_NAMES = ['RMP', 'ENC', 'SIZEM', 'VMPL'];

function decodedSide(revision: Revision): Side {
  const decoded = decodeCode(CODE, 'npf', revision.rules);
  const set = decoded.bits.filter((bit) => bit.set);
  return {
    revision: revision.name,
    stages: [],
    trace: [],
    log: [],
    left: 'as on the other side: no stage looks at these bits',
    sees: `whoever decodes the code: ${decoded.words}`,
    facts: {
      'bits set': set.map((bit) => bit.name).join('|'),
      'bits without a name': decoded.undefinedBits ?? 'none',
      'fault class': decoded.class,
    },
    outcome: null,
  };
}

const decoding: DemonstrationCase = {
  setting: 'An SNP guest writes with the C-bit set, and the RMP check refuses the write because of its VMPL.',
  input: `error code 0x${CODE.toString(16)} as EXITINFO1 of an #NPF, given to softkvm decode`,
  faultInput: null,
  run: decodedSide,
  holds: (side) => SEV_NAMES.filter((name) => side.facts['bits set']?.includes(name)).join() === 'RMP,ENC,VMPL',
};

export const namedBitsRow: Demonstration = {
  row: 3,
  differs: 'RMP, ENC, SIZEM and VMPL have names; no check looks at them yet',
  purpose:
    'What SNP hardware says about a nested fault has to have names before it can decide anything: later patches take ENC for the privacy of an access, and RMP for faults of its own kind.',
  cases: [decoding],
  equality: null,
};
