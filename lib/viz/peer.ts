// Libraries that draw, which chainrule does not depend on: loaded when something is drawn. Layer viz.
import { DependencyError } from '../errors.ts';

/** What `load` imports. @throws DependencyError that says how to install `packages` when one of them is missing */
export async function peer<T>(op: string, packages: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if ((error as NodeJS.ErrnoException | null)?.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new DependencyError(`${op}: what it draws with is not installed. Run: npm install ${packages}`, {
      cause: error,
    });
  }
}
