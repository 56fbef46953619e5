/** The scenes of the real KVM, as the library lists them. */
import { revisions } from '../../kvm/mmu/revisions/index.ts';
import type { KvmParams } from '../../kvm/params.ts';
import { InputError, UnsupportedError } from '../input-error.ts';
import { MODULE_PARAMS, moduleParams } from '../module-params.ts';
import { KvmModel } from './kvm-model/kvm-model.ts';
import type { Model, ModelSpec } from './model.ts';
import type { Scene } from './scene.ts';
import type { SceneInfo } from './scene-library.ts';
import { kvmScenes } from './scenes/index.ts';
import { shadowScenes } from './scenes/shadow.ts';
import { ShadowModel } from './shadow-model/model.ts';

/** Of the parameters, those that are given. @throws InputError, UnsupportedError */
function givenParams(given: Readonly<Record<string, string>>): Partial<KvmParams> {
  const all = moduleParams(given);
  const fixed = Object.keys(given).find((name) => /(^|\.)(tdp_mmu|npt)$/.test(name));
  if (fixed !== undefined) throw new InputError(`--param ${fixed}: a scene says itself who translates`);
  const named = MODULE_PARAMS.filter((p) => p.name in given || p.name.split('.')[1]! in given);
  return Object.fromEntries(named.map((p) => [p.key, all[p.key]]));
}

/** The model of a scene, with what the spec asks for. @throws InputError, UnsupportedError */
function makeKvmModel(scene: Scene, spec: ModelSpec): Model {
  const params = spec.params === undefined ? undefined : givenParams(spec.params);
  const Made = scene.vm?.paging === 'shadow' ? ShadowModel : KvmModel;
  const model = new Made(scene, { revision: spec.revision, params });
  const { expect } = scene;
  if (typeof expect === 'object' && !model.invariants.some((text) => text.startsWith(expect.violates)))
    throw new Error(`scene ${scene.name}: no invariant begins with '${expect.violates}'`);
  return model;
}

/** The same for a scene of a file: whatever is wrong with it is the file's matter. */
function makeOfFile(scene: Scene, spec: ModelSpec, place: string): Model {
  try {
    return makeKvmModel(scene, spec);
  } catch (error) {
    if (error instanceof InputError || error instanceof UnsupportedError) throw error;
    throw new InputError(`${place}: ${(error as Error).message}`);
  }
}

/** What the library needs to know of a scene. One that is made of a revision of its own runs under that alone. `place`: file and line. */
export function kvmSceneInfo(scene: Scene, place?: string): SceneInfo {
  return {
    name: scene.name,
    title: scene.title,
    expects: scene.expect === 'safe' ? 'holds' : scene.expect === 'livelock' ? 'livelock' : 'violation',
    revisions: typeof scene.revision === 'object' ? [] : revisions.map((r) => r.name),
    ...(place === undefined ? {} : { place }),
    make: (spec) => (place === undefined ? makeKvmModel(scene, spec) : makeOfFile(scene, spec, place)),
  };
}

export const kvmSceneInfos: readonly SceneInfo[] = [...kvmScenes, ...shadowScenes].map((scene) => kvmSceneInfo(scene));
