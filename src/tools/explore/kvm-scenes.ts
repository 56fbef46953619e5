/** The scenes of the real KVM, as the library lists them. */
import { revisions } from '../../kvm/mmu/revisions/index.ts';
import type { KvmParams } from '../../kvm/params.ts';
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
  const named = MODULE_PARAMS.filter((p) => p.name in given || p.name.split('.')[1]! in given);
  return Object.fromEntries(named.map((p) => [p.key, all[p.key]]));
}

/** The model of a scene, with what the spec asks for. @throws InputError, UnsupportedError */
export function makeKvmModel(scene: Scene, spec: ModelSpec): Model {
  const Made = scene.vm?.paging === 'shadow' ? ShadowModel : KvmModel;
  return new Made(scene, {
    revision: spec.revision,
    params: spec.params === undefined ? undefined : givenParams(spec.params),
  });
}

/** What the library needs to know of a scene. A scene that is made of a revision of its own runs under that alone. */
export function kvmSceneInfo(scene: Scene): SceneInfo {
  return {
    name: scene.name,
    title: scene.title,
    expects: scene.expect === 'safe' ? 'holds' : scene.expect === 'livelock' ? 'livelock' : 'violation',
    revisions: typeof scene.revision === 'object' ? [] : revisions.map((r) => r.name),
    make: (spec) => makeKvmModel(scene, spec),
  };
}

export const kvmSceneInfos: readonly SceneInfo[] = [...kvmScenes, ...shadowScenes].map(kvmSceneInfo);
