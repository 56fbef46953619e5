/** Lets every test run with the block compiler: SOFTKVM_COMPILE_AFTER=1 compiles whatever is executed. */
import { setDefaultEngine } from './engine.ts';

const after = Number(process.env['SOFTKVM_COMPILE_AFTER'] ?? Number.NaN);
if (!Number.isNaN(after)) setDefaultEngine({ compileAfter: after });
