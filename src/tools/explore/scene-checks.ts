/** What a scene has to keep to, so that it has finitely many states and each fits the words that a model has for it. */
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import type { ActorSpec, SceneSpec } from './scene.ts';

const MOST_ACTORS = 8;
/** Of one vCPU: its place among them has four bits, six under shadow paging. */
const MOST_OPS = 15;
const MOST_GUEST_OPS = 63;
/** Frames of a machine with 48 address bits. */
const FRAMES = 2 ** 36;

/** What is wrong with a scene, or null. */
export function sceneProblem(spec: SceneSpec): string | null {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(spec.name)) return 'a name is small letters, digits and dashes';
  const { actors } = spec;
  if (actors.length < 1 || actors.length > MOST_ACTORS) return `1 to ${MOST_ACTORS} actors`;
  if (!actors.some((a) => a.kind === 'vcpu')) return 'expected a vCPU among the actors';
  const shadow = spec.vm?.paging === 'shadow';
  for (const actor of actors) {
    const problem = actorProblem(actor, shadow);
    if (problem !== null) return problem;
  }
  for (const { id, gfn, pages } of spec.slots) {
    if (!Number.isSafeInteger(pages) || pages < 1) return `slot ${id}: ${pages} pages, expected 1 or more`;
    if (!isFrame(gfn) || !isFrame(gfn + pages - 1)) return `slot ${id}: ${frameProblem(gfn)}`;
  }
  const odd = [...(spec.gfns ?? []), ...(spec.private ?? []).map(([gfn]) => gfn)].find((gfn) => !isFrame(gfn));
  if (odd !== undefined) return frameProblem(odd);
  return typeof spec.revision === 'string' ? revisionProblem(spec.revision) : null;
}

function actorProblem(actor: ActorSpec, shadow: boolean): string | null {
  const odd = (gfns: readonly number[]): string | null => {
    const gfn = gfns.find((g) => !isFrame(g));
    return gfn === undefined ? null : frameProblem(gfn);
  };
  if (actor.kind === 'kernel') return odd(actor.gfns);
  if ((actor.guest !== undefined) !== shadow) return 'under shadow paging vCPUs are guestVcpu(...), and only there';
  const ops = (actor.guest ?? actor).ops.length;
  const most = shadow ? MOST_GUEST_OPS : MOST_OPS;
  if (ops < 1 || ops > most) return `a vCPU does 1 to ${most} things, not ${ops}`;
  return odd([...actor.before, ...actor.ops].map((op) => op.gfn));
}

function isFrame(gfn: number): boolean {
  return Number.isSafeInteger(gfn) && gfn >= 0 && gfn < FRAMES;
}

function frameProblem(gfn: number): string {
  return `frame ${gfn}: expected a whole number from 0 to 2^36 - 1`;
}

function revisionProblem(name: string): string | null {
  try {
    revisionByName(name);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}
