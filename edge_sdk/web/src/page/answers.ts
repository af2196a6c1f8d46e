// The box of the page in which texts get their labels, under an adapter that this browser keeps.
import { ADAPTER_KINDS, Adapters, type AdapterKind, type StoredRound } from "../adapters/adapters";
import { Answers } from "../adapters/answers";
import type { Database } from "../database/database";
import { openIdentity } from "../identity/identity";
import { Bundles } from "../transport/bundles";
import { Downloads } from "../transport/downloads";
import { Transport } from "../transport/transport";
import { startWorker } from "./client";
import { element, say } from "./view";

const IN_WORDS: Record<AdapterKind, string> = { global: "what the fleet has learned", local: "what was trained here" };

interface Choice {
  round: StoredRound;
  kind: AdapterKind;
}

export class AnswerBox {
  private choices: Choice[] = [];

  private constructor(
    private readonly adapters: Adapters,
    private readonly answers: Answers,
  ) {}

  static async open(database: Database): Promise<AnswerBox> {
    const adapters = new Adapters(database);
    // When there is a question: this browser has its key then, or would have no adapter.
    const bundles = async () => {
      const transport = new Transport(location.origin, await openIdentity(database));
      return new Bundles(database, new Downloads(transport, database));
    };
    const box = new AnswerBox(adapters, new Answers(adapters, bundles, startWorker));
    element("ask").onclick = () => box.answer();
    await box.refresh();
    return box;
  }

  /** Offers the adapters that are kept now; one that was chosen stays so while it is. */
  async refresh(): Promise<void> {
    const rounds = await this.adapters.rounds();
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
