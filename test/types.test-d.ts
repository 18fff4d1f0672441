// Types that users rely on; `npm run lint` checks them. Every @ts-expect-error is a call that must not compile.
import * as c from '../lib/index.ts';

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const is = <T extends true>(): T | undefined => undefined;

// ---- a method is its function, without the first argument ---------------------------------------------------------------
const x = c.tensor([[1, 2]]);
is<Equal<ReturnType<typeof x.add>, c.Tensor>>();
is<Equal<Parameters<typeof x.transpose>, [d0: number, d1: number]>>();
is<Equal<Parameters<typeof x.matmul>[0], c.Tensor>>();
is<Equal<typeof x.shape, readonly number[]>>();
is<Equal<typeof x.grad, c.Tensor | null>>();
is<Equal<ReturnType<typeof x.item>, number>>();
is<Equal<ReturnType<typeof x.registerHook>, () => void>>();
x.add_(1).mul_(x).T.mT.sum([0, 1], { keepdim: true });

// ---- overloads ----------------------------------------------------------------------------------------------------------
const all: c.Tensor = x.max();
const [largest, places]: [c.Tensor, c.Tensor] = c.max(x, 1);
const g: c.Tensor[] = c.grad(all, [largest, places]);
const maybe: (c.Tensor | null)[] = c.grad(all, x, { allowUnused: true });
// @ts-expect-error with allowUnused a gradient may be null
const sure: c.Tensor[] = c.grad(all, x, { allowUnused: true });

// ---- what fn returns ----------------------------------------------------------------------------------------------------
is<Equal<ReturnType<typeof c.scope<[c.Tensor, number]>>, [c.Tensor, number]>>();
const count: number = c.noGrad(() => 3);
const later: Promise<string> = c.scope(async () => 'x');
const size: number = x.size(0);
const sizes: readonly number[] = x.size();
{
  using t = c.zeros([1]);
  t.item();
}

// ---- compiled ------------------------------------------------------------------------------------------------------------
const compiled = c.compile((a: c.Tensor, { by }: { by: number }) => ({ y: a.mul(by), list: [a] }));
const now: { y: c.Tensor; list: c.Tensor[] } = compiled(x, { by: 2 });
const soon: Promise<{ y: c.Tensor; list: c.Tensor[] }> = compiled.async(x, { by: 2 });
const aborted = compiled.async(x, { by: 2 }, { signal: AbortSignal.timeout(1) });
const once: Promise<c.Tensor> = c.run(() => x.neg(), { signal: AbortSignal.timeout(1) });
const planned: number[] = compiled.explain().programs.map(({ plannedBytes }) => plannedBytes);
// @ts-expect-error an argument is missing
compiled(x);
// @ts-expect-error no such option
compiled.async(x, { by: 2 }, { abort: true });

// ---- refused --------------------------------------------------------------------------------------------------------------
// @ts-expect-error a shape is a list
c.zeros(2);
// @ts-expect-error no such dtype
c.zeros([2], { dtype: 'float16' });
// @ts-expect-error no such option
c.zeros([2], { dtpye: 'float32' });
// @ts-expect-error numbers, not strings
c.tensor(['1']);
// @ts-expect-error two dimensions
x.transpose(0);
// @ts-expect-error a tensor, not a list
x.matmul([1, 2]);
// @ts-expect-error none of them
x.mseLoss(x, { reduction: 'average' });
// @ts-expect-error read only
x.shape[0] = 3;
// @ts-expect-error read only
x.shape = [3];
// @ts-expect-error not a method: its first argument is no tensor
x.zeros([2]);
// @ts-expect-error a hook returns a tensor or nothing
x.registerHook(() => 5);
// @ts-expect-error a number or a tensor
c.where(x, 'a', 'b');

export { aborted, count, g, later, maybe, now, once, planned, size, sizes, soon, sure };
