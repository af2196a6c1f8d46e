import { HetloraError } from "../src/errors/errors";

/** The code of what an action throws; "none" where it throws nothing. */
export function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return error instanceof HetloraError ? error.code : String(error);
  }
  return "none";
}
