/** The scenes that come with the project, by name, and the way from a spec to a model. */
import { InputError } from '../input-error.ts';
import type { Model, ModelSpec } from './model.ts';
import { FaultProtocol } from './textbook/fault-protocol.ts';

export interface SceneInfo {
  readonly name: string;
  readonly title: string;
  /** What the search is expected to say. */
  readonly expects: 'holds' | 'violation' | 'deadlock' | 'livelock';
  /** Revisions of the fault path that it runs under; none: it has nothing to do with one. */
  readonly revisions: readonly string[];
  readonly make: (spec: ModelSpec) => Model | Promise<Model>;
}

const protocol = (guard: boolean, vcpus: number, invalidators: number, pages: number, rounds: number) => () =>
  new FaultProtocol({ vcpus, invalidators, pages, rounds, guard });

const textbook: readonly SceneInfo[] = [
  {
    name: 'fault-protocol',
    title: 'the rule of sequence and second look, by itself: two vCPUs, one invalidator, two pages',
    expects: 'holds',
    revisions: [],
    make: protocol(true, 2, 1, 2, 2),
  },
  {
    name: 'fault-protocol-unguarded',
    title: 'the same without the second look',
    expects: 'violation',
    revisions: [],
    make: protocol(false, 2, 1, 2, 2),
  },
  {
    name: 'fault-protocol-large',
    title: 'the same with the second look, two invalidators and three pages: what `bench explore` measures',
    expects: 'holds',
    revisions: [],
    make: protocol(true, 2, 2, 3, 1),
  },
];

export function scenes(): readonly SceneInfo[] {
  return textbook;
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
