// The box of the page in which texts get their labels, under an adapter that this browser keeps.
import { ADAPTER_KINDS, type AdapterKind, type StoredRound } from "../adapters/adapters";
import type { Answers } from "../adapters/answers";
import { openAnswers } from "../client";
import type { Database } from "../database/database";
import { browserFacts } from "../probe/browser";
import { freeBytesOf } from "../probe/report";
import { usableThreads } from "../runtimes/webAssembly";
import { startWorker } from "./client";
import { element, say } from "./view";

const IN_WORDS: Record<AdapterKind, string> = { global: "what the fleet has learned", local: "what was trained here" };

interface Choice {
  round: StoredRound;
  kind: AdapterKind;
}

export class AnswerBox {
  private choices: Choice[] = [];

  private constructor(private readonly answers: Answers) {}

  static async open(database: Database): Promise<AnswerBox> {
    const freeBytes = async () => freeBytesOf(await browserFacts(usableThreads()));
    const box = new AnswerBox(openAnswers({ serviceUrl: location.origin, database, freeBytes, startWorker }));
    element("ask").onclick = () => box.answer();
    await box.refresh();
    return box;
  }

  /** Offers the adapters that are kept now; one that was chosen stays so while it is. */
  async refresh(): Promise<void> {
    const rounds = await this.answers.rounds();
    this.choices = rounds.flatMap((round) => ADAPTER_KINDS.map((kind) => ({ round, kind })));
    const choice = element<HTMLSelectElement>("adapter");
    const chosen = choice.value;
    choice.replaceChildren(...this.choices.map(optionOf));
    if ([...choice.options].some((own) => own.value === chosen)) choice.value = chosen;
    element<HTMLButtonElement>("ask").disabled = !this.choices.length;
  }

  private async answer(): Promise<void> {
    const { selectedIndex } = element<HTMLSelectElement>("adapter");
    const { round, kind } = this.choices[selectedIndex]!;
    say("answer", "…");
    try {
      const found = await this.answers.classify(element<HTMLInputElement>("question").value, round, kind);
      say("answer", found.map(({ label, probability }) => `${label} ${(100 * probability).toFixed(1)} %`).join(", "));
    } catch (error) {
      say("answer", error instanceof Error ? error.message : String(error));
    }
  }
}

function optionOf({ round, kind }: Choice): HTMLOptionElement {
  return new Option(`${IN_WORDS[kind]}, round ${round.round_index}`, `${kind}/${round.run_id}/${round.round_index}`);
}
