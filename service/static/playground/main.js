// Starts every panel once the service has said which models it has.

import { get, send } from "./api.js";
import * as curve from "./curve.js";
import { byId, html, tell } from "./dom.js";
import * as functions from "./function.js";
import * as image from "./image.js";
import * as models from "./models.js";
import * as points from "./points.js";
import * as w10 from "./w10.js";

const PANELS = { curve, points, image, w10, function: functions, models };

const MOST_LINKS = 12; // to reports, at the top; the models panel has all of them

try {
  const { document: list } = await send(get("models"));
  const serving = list.models.filter(({ state }) => state === "serving").slice(0, MOST_LINKS);
  byId("reports").append("Reports:", ...serving.map(({ model }) => html("a", { href: `models/${model}/report` }, model)));
  byId("reports").hidden = !serving.length;
  await Promise.all(Object.values(PANELS).map((panel) => panel.start(list.models)));
} catch (error) {
  for (const name of Object.keys(PANELS)) tell(name, error);
}
document.documentElement.dataset.started = "true";
