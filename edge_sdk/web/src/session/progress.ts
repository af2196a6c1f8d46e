// How far a device is with an assignment, and which moves that may take, in one table.

/**
 * What of an assignment is kept: the offer; plan and adapter, too; a checkpoint, too; the update alone, which is
 * to be delivered. The last two are ends. The service has states of its own.
 */
export type Progress = "offered" | "taken" | "training" | "trained" | "delivered" | "given_up";

const LEGAL_MOVES: Record<Progress, readonly Progress[]> = {
  offered: ["taken", "offered", "given_up"],
  taken: ["training", "trained", "delivered", "offered", "given_up"],
  training: ["training", "trained", "delivered", "offered", "given_up"],
  trained: ["delivered", "offered", "given_up"],
  delivered: [],
  given_up: [],
};

export const isLegal = (old: Progress, next: Progress): boolean => LEGAL_MOVES[old].includes(next);

/** Whether nothing is left to do for an assignment. */
export const isOver = (progress: Progress): boolean => LEGAL_MOVES[progress].length === 0;
