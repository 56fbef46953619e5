/** The scenes that come with the project, by name, and the way from a spec to a model. */
import { InputError } from '../input-error.ts';
import { kvmSceneInfo, kvmSceneInfos } from './kvm-scenes.ts';
import type { Model, ModelSpec } from './model.ts';
import { isSceneFile, loadSceneFile } from './scene-file.ts';
import { standardLarge } from './scenes/standard.ts';
import { FaultProtocol, type FaultProtocolSize } from './textbook/fault-protocol.ts';

export interface SceneInfo {
  readonly name: string;
  readonly title: string;
  /** What the search is expected to say. */
  readonly expects: 'holds' | 'violation' | 'deadlock' | 'livelock';
  /** Revisions of the fault path that it runs under; none: it has nothing to do with one. */
  readonly revisions: readonly string[];
  /** File and line of a scene that does not come with the project. */
  readonly place?: string;
  /** Only explored when it is asked for by name: millions of states. */
  readonly large?: true;
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

const large: SceneInfo = { ...kvmSceneInfo(standardLarge), large: true };

const all: readonly SceneInfo[] = [...textbook, ...kvmSceneInfos, large];

export function scenes(): readonly SceneInfo[] {
  return all;
}

/** The model that a thread makes again; the types of a scene file were checked before. @throws InputError */
export async function makeModel(spec: ModelSpec): Promise<Model> {
  return await modelOf(await findScene(spec.scene, false), spec);
}

/** The model of a scene, with what the spec asks for. @throws InputError */
export async function modelOf(scene: SceneInfo, spec: ModelSpec): Promise<Model> {
  if (spec.revision !== undefined && !scene.revisions.includes(spec.revision))
    throw new InputError(
      `--revision ${spec.revision}: ${scene.name} ${
        scene.revisions.length === 0 ? 'has a fixed one, or none' : `runs under ${scene.revisions.join(', ')}`
      }`,
    );
  return await scene.make(spec);
}

/** A scene of the project by name, or one of a file (scene-file.ts), whose types are checked if `check`. @throws InputError */
export async function findScene(name: string, check = true): Promise<SceneInfo> {
  if (isSceneFile(name)) {
    const { scene, place } = await loadSceneFile(name, check);
    return kvmSceneInfo(scene, place);
  }
  const scene = scenes().find((s) => s.name === name);
  if (scene === undefined)
    throw new InputError(`${name}: no such scene: a name from \`softkvm explore --list\` is expected, or a file`);
  return scene;
}
