// Whether ops are recorded: what users call round their code.
import { current, within } from '../context.ts';

/** Runs fn without recording; may be nested, and follows the awaits of an async fn. */
export const noGrad = <T>(fn: () => T): T => within('noGrad', { grad: false, stopped: true }, fn);
/** Runs fn with recording, inside `noGrad`. */
export const enableGrad = <T>(fn: () => T): T => within('enableGrad', { grad: true, stopped: false }, fn);
/** As `noGrad`: the way to say that nothing made inside will ever be differentiated. */
export const inferenceMode = <T>(fn: () => T): T => within('inferenceMode', { grad: false, stopped: true }, fn);
export const isGradEnabled = (): boolean => current().grad;
