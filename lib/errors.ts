// The error classes. Every message names the op, the values and the way out. Imports nothing.

/** Base of every error that chainrule throws. `code` is stable across versions. */
export class ChainruleError extends Error {
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.name = new.target.name;
  }
}

const coded = (code: string) =>
  class extends ChainruleError {
    constructor(message: string, options?: ErrorOptions) {
      super(code, message, options);
    }
  };

/** Shapes that do not fit together, or a size that is not one. */
export class ShapeError extends coded('ERR_SHAPE') {}
/** Dtypes that differ, or an op that is not defined for a dtype. */
export class DTypeError extends coded('ERR_DTYPE') {}
/** A dimension or an index outside its range. */
export class IndexError extends coded('ERR_INDEX') {}
/** An argument of the wrong kind or outside its domain. */
export class ArgumentError extends coded('ERR_ARG') {}
/** A tensor used after `dispose()` or after its scope ended; a writer after `close()`. */
export class DisposedError extends coded('ERR_DISPOSED') {}
/** A rule of differentiation broken: a freed graph, a changed saved value, a gradient of the wrong shape. */
export class AutogradError extends coded('ERR_AUTOGRAD') {}
/** No memory left for tensors, after collecting and trimming. */
export class MemoryError extends coded('ERR_OUT_OF_MEMORY') {}
/** A file that is not what its format demands. */
export class FormatError extends coded('ERR_FORMAT') {}
/** Something that a compiled program cannot replay. */
export class CaptureError extends coded('ERR_CAPTURE') {}
/** A library that one feature needs and that is not installed. */
export class DependencyError extends coded('ERR_DEPENDENCY') {}
