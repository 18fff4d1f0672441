// Every test file draws from one seed: a run that fails, fails again.
import { manualSeed } from '../lib/index.ts';

manualSeed(1);
