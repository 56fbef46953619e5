/** The scenes under shadow paging that come with the project. */
import type { Scene } from '../scene.ts';
import { shadowFaults } from './shadow-faults.ts';

export const shadowScenes: readonly Scene[] = [...shadowFaults];
