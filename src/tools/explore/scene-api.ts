/** What a scene file imports, as 'softkvm/scenes': what scenes and their actors are made of. */
export * from './kernel-actors.ts';
export * from './kernel-actors-nx.ts';
export * from './kernel-actors-ring.ts';
export * from './kernel-actors-swap.ts';
export * from './scene.ts';
export * from './shadow-actors.ts';
export * from './shadow-scene.ts';
