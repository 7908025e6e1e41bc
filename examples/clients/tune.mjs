// Tunes a logistic regression: each epoch is reported, and the service says when a trial is not worth going on.
const { ADVISOR_URL: url, ADVISOR_TOKEN: token, TRIALS = "12" } = process.env;

async function call(method, path, body, key) {
  for (let pause = 200; ; pause *= 2) {
    try {
      const answer = await fetch(url + path, {
        method,
        headers: {
          Authorization: `Bearer ${token}`,
          "Content-Type": "application/json",
          ...(key && { "Idempotency-Key": key }),
        },
        body: body && JSON.stringify(body),
      });
      if (answer.status !== 429 && answer.status !== 503) {
        const document = await answer.json();
        if (!answer.ok) throw Object.assign(new Error(document.detail), { final: true });
        return document;
      }
    } catch (error) {
      if (error.final || pause > 10_000) throw error;
    }
    await new Promise((done) => setTimeout(done, pause)); // not answered: the same key gets the same trial
  }
}

const rows = Array.from({ length: 300 }, (_, i) => {
  const x = [Math.sin(i), Math.cos(i * 1.7), Math.sin(i * 0.3) ** 2];
  return { x, y: x[0] + 2 * x[1] - x[2] + 0.3 * Math.sin(i * 9.1) > 0 ? 1 : 0, held: i % 3 === 0 };
});

async function train({ rate, decay }, report) {
  let weights = [0, 0, 0, 0];
  let loss = Infinity;
  for (let epoch = 1; epoch <= 30; epoch++) {
    for (const { x, y } of rows.filter((row) => !row.held)) {
      const error = 1 / (1 + Math.exp(-score(weights, x))) - y;
      weights = weights.map((w, i) => w - rate * (error * (i < 3 ? x[i] : 1) + decay * w));
    }
    const held = rows.filter((row) => row.held);
    loss = held.reduce((sum, { x, y }) => sum + Math.log1p(Math.exp((y ? -1 : 1) * score(weights, x))), 0) / held.length;
    if (await report(epoch, loss)) break;
  }
  return loss;
}
const score = (weights, x) => weights[3] + x.reduce((sum, value, i) => sum + value * weights[i], 0);

const space = {
  rate: { name: "FloatDistribution", attributes: { low: 1e-4, high: 1, log: true, step: null } },
  decay: { name: "FloatDistribution", attributes: { low: 1e-6, high: 0.1, log: true, step: null } },
};
const study = await call("POST", "/v1/studies", { name: "logistic", trials: Number(TRIALS), epochs: 30, space });
for (let i = 1; ; i++) {
  const { trial } = await call("POST", `/v1/studies/${study.id}/trials`, { worker: "node" }, `${study.id}-${i}`);
  if (!trial) break;
  const place = `/v1/studies/${study.id}/trials/${trial.number}`;
  const { attempt } = trial;
  await train(trial.configuration, async (epoch, loss) => (await call("POST", `${place}/reports`, { epoch, loss, attempt })).stop);
  await call("POST", `${place}/complete`, { attempt });
}
const best = await call("GET", `/v1/studies/${study.id}/best`);
console.log(`best of ${TRIALS}: ${best.value.toFixed(4)} with`, best.configuration);
