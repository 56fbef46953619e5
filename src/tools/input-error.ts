/** Input that cannot be used, said in one line that names the input and the expectation. The command line prints it and exits with 2. */
export class InputError extends Error {}

/** Something softkvm knows of and cannot do yet. `feature` names it in a few words. */
export class UnsupportedError extends Error {
  readonly feature: string;
  constructor(feature: string) {
    super(`not supported yet: ${feature}`);
    this.feature = feature;
  }
}
