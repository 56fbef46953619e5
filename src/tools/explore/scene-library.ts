/** The scenes that come with the project, by name, and the way from a spec to a model. */
import { InputError } from '../input-error.ts';
import { kvmSceneInfos } from './kvm-scenes.ts';
import type { Model, ModelSpec } from './model.ts';
import { FaultProtocol, type FaultProtocolSize } from './textbook/fault-protocol.ts';

export interface SceneInfo {
  readonly name: string;
  readonly title: string;
  /** What the search is expected to say. */
  readonly expects: 'holds' | 'violation' | 'deadlock' | 'livelock';
  /** Revisions of the fault path that it runs under; none: it has nothing to do with one. */
  readonly revisions: readonly string[];
  readonly make: (spec: ModelSpec) => Model | Promise<Model>;
}

const PROTOCOL: FaultProtocolSize = { vcpus: 2, invalidators: 1, pages: 2, rounds: 2, guard: true };
export const PROTOCOL_LARGE: FaultProtocolSize = { vcpus: 3, invalidators: 2, pages: 2, rounds: 1, guard: true };

const textbook: readonly SceneInfo[] = [
  {
    name: 'fault-protocol',
    title: 'the rule of sequence and second look, by itself: two vCPUs, one invalidator, two pages',
    expects: 'holds',
    revisions: [],
    make: () => new FaultProtocol(PROTOCOL),
  },
  {
    name: 'fault-protocol-unguarded',
    title: 'the same without the second look',
    expects: 'violation',
    revisions: [],
    make: () => new FaultProtocol({ ...PROTOCOL, guard: false }),
  },
  {
    name: 'fault-protocol-large',
    title: 'the same with the second look, three vCPUs and two invalidators: what `bench explore` measures',
    expects: 'holds',
    revisions: [],
    make: () => new FaultProtocol(PROTOCOL_LARGE),
  },
];

const all: readonly SceneInfo[] = [...textbook, ...kvmSceneInfos];

export function scenes(): readonly SceneInfo[] {
  return all;
}

/** @throws InputError when there is no such scene, or not under that revision */
export async function makeModel(spec: ModelSpec): Promise<Model> {
  const scene = findScene(spec.scene);
  if (spec.revision !== undefined && !scene.revisions.includes(spec.revision))
    throw new InputError(
      `--revision ${spec.revision}: ${scene.name} ${
        scene.revisions.length === 0 ? 'has nothing to do with a revision' : `runs under ${scene.revisions.join(', ')}`
      }`,
    );
  return await scene.make(spec);
}

/** @throws InputError */
export function findScene(name: string): SceneInfo {
  const scene = scenes().find((s) => s.name === name);
  if (scene === undefined)
    throw new InputError(`${name}: no such scene: a name from \`softkvm explore --list\` is expected`);
  return scene;
}
