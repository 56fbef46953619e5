/** The kernel-side actors that a scene can name. */
import { AttributeChange, attributeChangeStages } from '../../kvm/actors/attribute-change.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE } from '../../kvm/attributes.ts';
import { part } from './kvm-model-kernel.ts';
import type { KernelSpec } from './scene.ts';

/** KVM_SET_MEMORY_ATTRIBUTES on `pages` frames from `gfn`. `stages`: another list than KVM's, with a guard taken out. */
export function setAttributes(
  gfn: number,
  pages: number,
  to: 'private' | 'shared',
  stages = attributeChangeStages,
): KernelSpec {
  return {
    kind: 'kernel',
    name: `make ${to}`,
    gfns: [],
    make: ({ vm }) => [
      part(stages, new AttributeChange(vm, gfn, gfn + pages, to === 'private' ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0)),
    ],
  };
}
