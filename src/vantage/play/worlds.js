// The worlds of the article, as mathematics.js has them.

// Two states, two actions, one step: rewards 12, 7 and 2, 5. State 2 is the end.
const ARTICLE = {
  actions: 2,
  observation: [0, 1, 0],
  initial: [0.5, 0.5, 0],
  discount: 1,
  edges: [
    { s: 0, a: 0, next: 2, p: 1, r: 12 },
    { s: 0, a: 1, next: 2, p: 1, r: 7 },
    { s: 1, a: 0, next: 2, p: 1, r: 2 },
    { s: 1, a: 1, next: 2, p: 1, r: 5 },
  ],
};

// Sutton & Barto 2018, example 13.1: three states that look the same, the second reversed; actions
// left and right, reward −1 a step, state 3 is the end. With probability `slip` a step goes where
// the other action leads.
function corridor(discount = 1, slip = 0) {
  const leads = [
    [0, 1],
    [2, 0],
    [1, 3],
  ];
  const edges = leads.flatMap((ways, s) =>
    ways.flatMap((_, a) =>
      [
        { s, a, next: ways[a], p: 1 - slip, r: -1 },
        { s, a, next: ways[1 - a], p: slip, r: -1 },
      ].filter(({ p }) => p > 0),
    ),
  );
  return { actions: 2, observation: [0, 0, 0, 0], initial: [1, 0, 0, 0], discount, edges };
}

// One state, one action of several, one certain reward.
const bandit = (rewards) => ({
  actions: rewards.length,
  observation: [0, 0],
  initial: [1, 0],
  discount: 1,
  edges: rewards.map((r, a) => ({ s: 0, a, next: 1, p: 1, r })),
});

// A language model of three tokens, a, b and the end ⊣, that writes two tokens at most: the
// prompt, then what has been written, is the state; the same three logits act in each.
const COMPLETIONS = ["⊣", "a⊣", "b⊣", "aa", "ab", "ba", "bb"];
function languageModel(rewards) {
  const earned = Object.fromEntries(COMPLETIONS.map((text, i) => [text, rewards[i]]));
  const edges = [];
  ["", "a", "b"].forEach((written, s) => {
    [..."ab⊣"].forEach((token, a) => {
      const text = written + token;
      const complete = text in earned;
      const next = complete ? 3 : 1 + a;
      edges.push({ s, a, next, p: 1, r: complete ? earned[text] : 0 });
    });
  });
  return { actions: 3, observation: [0, 0, 0, 0], initial: [1, 0, 0, 0], discount: 1, edges };
}
