/** The scenes of the real KVM that come with the project. */
import type { Scene } from '../scene.ts';
import { aging } from './aging.ts';
import { attributeChange } from './attribute-change.ts';
import { conversions } from './conversions.ts';
import { dirtyLog } from './dirty-log.ts';
import { dirtyLogMore } from './dirty-log-more.ts';
import { dirtyRings } from './dirty-ring.ts';
import { eagerSplit } from './eager-split.ts';
import { hugePages } from './huge-pages.ts';
import { mmio } from './mmio.ts';
import { moreSlots } from './more-slots.ts';
import { nestedInvalidations } from './nested-invalidations.ts';
import { nxHugePages } from './nx-huge-pages.ts';
import { oddAccesses } from './odd-accesses.ts';
import { oddCases } from './odd-cases.ts';
import { pageMoves } from './page-moves.ts';
import { plainStores } from './plain-stores.ts';
import { preFaults } from './pre-fault.ts';
import { privateByGuest } from './private-by-guest.ts';
import { privateMemory } from './private-memory.ts';
import { privateToShared } from './private-to-shared.ts';
import { slotGoes } from './slot-goes.ts';
import { standard } from './standard.ts';
import { swapping } from './swap.ts';
import { twoVcpus } from './two-vcpus.ts';

export const kvmScenes: readonly Scene[] = [
  ...attributeChange,
  ...privateToShared,
  ...pageMoves,
  ...slotGoes,
  ...mmio,
  ...hugePages,
  ...dirtyLog,
  ...twoVcpus,
  ...privateMemory,
  ...preFaults,
  ...aging,
  ...nestedInvalidations,
  ...moreSlots,
  ...conversions,
  ...dirtyLogMore,
  ...nxHugePages,
  ...dirtyRings,
  ...oddAccesses,
  ...oddCases,
  ...privateByGuest,
  ...swapping,
  ...eagerSplit,
  ...plainStores,
  ...standard,
];
