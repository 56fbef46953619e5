/** Replays a scenario up to one of its steps and follows the faults of that step. */

import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { machineFor } from '../conform/conform.ts';
import { setUpScenario } from '../conform/replay.ts';
import { readScenario } from '../conform/validate.ts';
import { type OpAnswer, runOp } from '../conform/vm-ops.ts';
import { InputError } from '../input-error.ts';
import { FaultLog, type FaultRecord } from './fault-log.ts';

export interface ScenarioFaults {
  readonly scenario: string;
  readonly title: string;
  readonly step: number;
  readonly operation: unknown;
  readonly answer: OpAnswer;
  readonly faults: readonly FaultRecord[];
}

/** The faults of step `step` (the last one when absent). @throws InputError, UnsupportedError */
export function scenarioFaults(path: string, step: number | undefined, revision: Revision | undefined): ScenarioFaults {
  const scenario = readScenario(path);
  const chosen = step ?? scenario.steps.length - 1;
  const at = scenario.steps[chosen];
  if (at === undefined) throw new InputError(`--step ${chosen}: ${path} has steps 0 to ${scenario.steps.length - 1}`);
  const machine = setUpScenario(scenario, {
    machine: machineFor(path, scenario.paging, { params: {} }),
    contractOnly: true,
    ...(revision === undefined ? {} : { revision }),
  });
  try {
    for (let i = 0; i < chosen; i++) runOp(machine, scenario.steps[i]!.do);
    const log = new FaultLog(machine.vm.state);
    machine.vm.onTrace((event) => {
      log.event(event);
    });
    const answer = runOp(machine, at.do);
    log.finish();
    machine.vm.state.mmu.recorder = null;
    return {
      scenario: scenario.name,
      title: scenario.title,
      step: chosen,
      operation: at.do,
      answer,
      faults: log.faults,
    };
  } finally {
    machine.close();
  }
}
