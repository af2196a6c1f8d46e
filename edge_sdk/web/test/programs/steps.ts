// Times the steps of a case in Node for `hetlora bench clients`, and prints losses and seconds as JSON.
import { OpenModel } from "../../src/training/openModel";
import { openingIn } from "../nodeCase";
import { timedSteps } from "../trainingCase";

const opening = { ...(await openingIn(process.argv[2]!)), heldOut: [] };
const model = await OpenModel.open(opening);
console.log(JSON.stringify(await timedSteps(opening.settings.steps, () => model.step())));
await model.close();
