/** The scenes under shadow paging that come with the project. */
import type { Scene } from '../scene.ts';
import { shadowFaults } from './shadow-faults.ts';
import { shadowFixes } from './shadow-fixes.ts';
import { shadowUnsync } from './shadow-unsync.ts';

export const shadowScenes: readonly Scene[] = [...shadowFaults, ...shadowUnsync, ...shadowFixes];
