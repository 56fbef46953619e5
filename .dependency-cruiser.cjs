// The rules of docs/ARCHITECTURE.md. A layer imports only from itself and from the layers before it in this list.
const layers = ['arch', 'host', 'cpu', 'kvm', 'vmm', 'tools', 'cli'];
const core = '^src/(arch|host|cpu|kvm)/';
const tests = '\\.(test|testing)\\.ts$';

const oneDirection = layers.slice(0, -1).map((layer, i) => ({
  name: `${layer}-imports-only-upwards`,
  severity: 'error',
  from: { path: `^src/${layer}/` },
  to: { path: `^src/(${layers.slice(i + 1).join('|')})/` },
}));

module.exports = {
  forbidden: [
    ...oneDirection,
    {
      name: 'core-sees-no-platform',
      comment: 'no Node and no package in the core; types/DOM: tsconfig.core.json',
      severity: 'error',
      from: { path: core, pathNot: tests },
      to: { dependencyTypes: ['core', 'npm', 'npm-dev'] },
    },
    {
      name: 'processor-and-kvm-meet-at-enter',
      comment:
        'KVM programs control blocks and tables in memory; of the processor it sees the profile, the state it saves and what enters a guest',
      severity: 'error',
      from: { path: '^src/kvm/', pathNot: tests },
      to: { path: '^src/cpu/', pathNot: '^src/cpu/((alu|processor|profile|state)\\.ts|profiles/)' },
    },
    {
      name: 'no-circular',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    { name: 'tests-are-leaves', severity: 'error', from: { pathNot: tests }, to: { path: tests } },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
  },
};
