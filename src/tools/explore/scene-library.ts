/** The scenes that come with the project, by name, and the way from a spec to a model. */
import { InputError } from '../input-error.ts';
import { kvmSceneInfo, kvmSceneInfos } from './kvm-scenes.ts';
import type { Model, ModelSpec } from './model.ts';
import { isSceneFile, loadSceneFile } from './scene-file.ts';
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

/** `check`: the types of a scene file are checked; its other threads need not do it again. @throws InputError */
export async function makeModel(spec: ModelSpec, check = true): Promise<Model> {
  const scene = await findScene(spec.scene, check);
  if (spec.revision !== undefined && !scene.revisions.includes(spec.revision))
    throw new InputError(
      `--revision ${spec.revision}: ${scene.name} ${
        scene.revisions.length === 0 ? 'has a fixed one, or none' : `runs under ${scene.revisions.join(', ')}`
      }`,
    );
  return await scene.make(spec);
}

/** A scene of the project by name, or one of a file (scene-file.ts). @throws InputError */
export async function findScene(name: string, check = true): Promise<SceneInfo> {
  if (isSceneFile(name)) return kvmSceneInfo(await loadSceneFile(name, check));
  const scene = scenes().find((s) => s.name === name);
  if (scene === undefined)
    throw new InputError(`${name}: no such scene: a name from \`softkvm explore --list\` is expected, or a file`);
  return scene;
}
