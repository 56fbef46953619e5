// The layer rule of docs/ARCHITECTURE.md: a layer imports only from itself and from the layers above it in the list.
const layers = ['arch', 'host', 'cpu', 'kvm', 'vmm', 'tools', 'cli'];
const below = layers.slice(0, -1).map((layer, i) => ({
  name: `${layer}-imports-only-upwards`,
  severity: 'error',
  from: { path: `^src/${layer}/` },
  to: { path: `^src/(${[...layers.slice(i + 1), 'platform'].join('|')})/` },
}));
module.exports = {
  forbidden: [
    ...below.filter((r) => !/^(vmm|tools)-/.test(r.name)),
    { name: 'vmm-imports-only-upwards', severity: 'error', from: { path: '^src/vmm/' }, to: { path: '^src/(tools|cli)/' } },
    { name: 'tools-imports-only-upwards', severity: 'error', from: { path: '^src/tools/' }, to: { path: '^src/cli/' } },
    {
      name: 'core-sees-no-platform',
      severity: 'error',
      from: { path: '^src/(arch|host|cpu|kvm)/', pathNot: '\\.(test|testing)\\.ts$' },
      to: { dependencyTypes: ['core', 'npm', 'npm-dev'] },
    },
    { name: 'processor-and-kvm-meet-at-enter', severity: 'error', from: { path: '^src/kvm/' }, to: { path: '^src/cpu/(interpreter|system)/' } },
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } } },
    { name: 'tests-are-leaves', severity: 'error', from: { pathNot: '\\.test\\.ts$' }, to: { path: '\\.test\\.ts$' } },
  ],
  options: { doNotFollow: { path: 'node_modules' }, tsConfig: { fileName: 'tsconfig.json' }, tsPreCompilationDeps: true },
};
