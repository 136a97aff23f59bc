// On the page of nodes: whether they are those that this browser seals to, and the choice to go over.

import { keepNodes, known, standing } from "./mpc/pins.js";

const root = document.getElementById("nodes-known");
const [text, list, button] = [root.querySelector("p"), root.querySelector("ul"), root.querySelector("button")];

const SAID = {
  first: "This browser has sealed nothing yet. It will remember the nodes that it seals to first, and seal to no others.",
  known: "These are the nodes that this browser has sealed to before; it seals to no others.",
  followed: "A node has a new key since this browser sealed to them: the old one, or two other nodes, signed for that.",
  other:
    "These are not the nodes that this browser has sealed to before, so it sends them nothing. Ask the operators, by another way than this site, whether these are their fingerprints; then let this browser know them. Before, it knew:",
};

const show = async () => {
  const answer = await fetch("/api/v1/nodes/", { headers: { Accept: "application/json" } });
  const { results } = await answer.json();
  const { how, prints } = await standing(results.map(({ descriptor }) => descriptor));
  root.dataset.how = how;
  text.textContent = SAID[how];
  list.replaceChildren(
    ...(how === "other" ? known() : []).map((print) => {
      const item = document.createElement("li");
      const code = document.createElement("code");
      code.textContent = print;
      item.append(code);
      return item;
    }),
  );
  button.hidden = how !== "other";
  button.onclick = () => {
    keepNodes(prints);
    return show();
  };
  root.hidden = false;
};

show().catch(() => {
  text.textContent = "Not compared: the site did not answer, or its nodes' descriptors do not check.";
  root.hidden = false;
});
