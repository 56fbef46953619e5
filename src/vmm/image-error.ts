/** An image (or a module given with it) that cannot be loaded, said in one line that names the file and what is wrong with it. */
export class ImageError extends Error {
  /** The file, as the user named it. */
  readonly file: string;

  constructor(file: string, problem: string) {
    super(`${file}: ${problem}`);
    this.file = file;
  }
}
