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

/** Shapes that do not fit together, or a size that is not one. */
export class ShapeError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_SHAPE', message, options);
  }
}

/** Dtypes that differ, or an op that is not defined for a dtype. */
export class DTypeError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_DTYPE', message, options);
  }
}

/** A dimension or an index outside its range. */
export class IndexError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_INDEX', message, options);
  }
}

/** An argument of the wrong kind or outside its domain. */
export class ArgumentError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_ARG', message, options);
  }
}

/** A tensor used after `dispose()` or after its scope ended. */
export class DisposedError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_DISPOSED', message, options);
  }
}

/** A rule of differentiation broken: a freed graph, a changed saved value, a gradient of the wrong shape. */
export class AutogradError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_AUTOGRAD', message, options);
  }
}

/** No memory left for tensors, after collecting and trimming. */
export class MemoryError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_OUT_OF_MEMORY', message, options);
  }
}

/** A file that is not what its format demands. */
export class FormatError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_FORMAT', message, options);
  }
}

/** Something that a compiled program cannot replay. */
export class CaptureError extends ChainruleError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_CAPTURE', message, options);
  }
}
