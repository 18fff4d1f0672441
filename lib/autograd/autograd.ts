// The namespace `autograd`. Nothing is defined here.
export { CustomFunction as Function, type Differentiable, FunctionContext, type Gradients } from './function.ts';
