/** How a fault ended: plain data, free of addresses, so that outcomes of different inputs can be compared. */

/** The memory-fault or other exit that was prepared. */
export interface OutcomeExit {
  readonly reason: string;
  /** Memory fault only: KVM_MEMORY_EXIT_FLAG_PRIVATE is set. */
  readonly isPrivate: boolean;
  /** Memory fault only: which page it names. */
  readonly page: 'the faulting page' | 'another page' | null;
  /** Memory fault only: bytes. */
  readonly size: number;
}

/** What the fault object held when the stages were done. */
export interface OutcomeFields {
  readonly isPrivate: boolean;
  /** The code that the stages saw, against the one that was reported. */
  readonly errorCode: string;
  readonly pfn: string;
  readonly hva: string;
  readonly mapWritable: boolean;
  readonly hasSlot: boolean;
}

export interface Outcome {
  /** `resume` the guest, `emulate`, `userspace`, an errno, `mapped` (pre-fault), or `bug`: the kernel would have stopped at a BUG(). */
  readonly verdict: string;
  /** What the stage that decided gave: RET_PF_* or an errno. */
  readonly ret: string;
  readonly exit: OutcomeExit | null;
  /** How the emulator was asked to take over, null when it was not. */
  readonly emulated: string | null;
  /** The last-level entry afterwards. */
  readonly spteAfter: string;
  readonly mmioCache: string;
  /** Statistics that moved (pf_taken and so on; 15 stands for 15 and more). */
  readonly stats: Readonly<Record<string, number>>;
  readonly log: readonly string[];
  /** The work that was queued, null for none. */
  readonly asyncPf: string | null;
  /** Signals that the process got; `#PF for the guest` when the fault is the guest's own. */
  readonly signals: readonly string[];
  /** The page was recorded in the dirty log. */
  readonly dirty: boolean;
  /** Null when no stage ran: a reserved-bit fault that was decided before. */
  readonly fields: OutcomeFields | null;
  /** The stage that decided. Who decides is not behaviour: comparisons leave it out. */
  readonly decidedBy: string;
}

/** What kind of difference it is: userspace or guest see it, KVM's own state differs, or only a field of the fault object. */
export type DifferenceLevel = 'exit' | 'state' | 'field';

export interface OutcomeDifference {
  readonly level: DifferenceLevel;
  readonly field: string;
  readonly before: string;
  readonly after: string;
}

const LEVELS: readonly (readonly [keyof Outcome, DifferenceLevel])[] = [
  ['verdict', 'exit'],
  ['exit', 'exit'],
  ['emulated', 'exit'],
  ['signals', 'exit'],
  ['asyncPf', 'state'],
  ['spteAfter', 'state'],
  ['mmioCache', 'state'],
  ['dirty', 'state'],
  ['stats', 'state'],
  ['log', 'state'],
  ['ret', 'field'],
];

/** Everything in which two outcomes differ, the most visible first. Empty for equal ones, whoever decided. */
export function outcomeDifferences(before: Outcome, after: Outcome): OutcomeDifference[] {
  const found: OutcomeDifference[] = [];
  for (const [field, level] of LEVELS) {
    // An exit that was prepared is seen by userspace only if the fault leaves to it.
    const unseen = field === 'exit' && staysInside(before) && staysInside(after);
    push(found, unseen ? 'state' : level, field, before[field], after[field]);
  }
  if (before.fields === null || after.fields === null) {
    push(found, 'field', 'fields', before.fields, after.fields);
    return found;
  }
  for (const field of ['isPrivate', 'errorCode', 'pfn', 'hva', 'mapWritable', 'hasSlot'] as const) {
    push(found, 'field', `fields.${field}`, before.fields[field], after.fields[field]);
  }
  return found;
}

function staysInside({ verdict }: Outcome): boolean {
  return verdict === 'resume' || verdict === 'emulate' || verdict === 'mapped' || verdict === 'bug';
}

function push(
  found: OutcomeDifference[],
  level: DifferenceLevel,
  field: string,
  before: unknown,
  after: unknown,
): void {
  const a = text(before);
  const b = text(after);
  if (a !== b) found.push({ level, field, before: a, after: b });
}

function text(value: unknown): string {
  if (value === null) return 'none';
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join('; ');
  if (typeof value !== 'object') return String(value);
  const parts = Object.entries(value as Record<string, unknown>).filter(([, v]) => v !== null);
  return parts.length === 0 ? 'none' : parts.map(([k, v]) => `${k} ${String(v)}`).join(', ');
}
