/** The scenes under shadow paging that come with the project. */
import type { Scene } from '../scene.ts';
import { shadowFaults } from './shadow-faults.ts';
import { shadowFixes } from './shadow-fixes.ts';

export const shadowScenes: readonly Scene[] = [...shadowFaults, ...shadowFixes];
