// The scenario through @segment/analytics-node: `node segment_node.js HOST KEY`.
const { Analytics } = require("@segment/analytics-node");

const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host, flushAt: 1, maxRetries: 10 });
const failures = [];
analytics.on("error", (error) => failures.push(error));

async function main() {
  const calls = [
    (done) => analytics.identify({ userId: "u1", traits: { email: "ann@example.com" } }, done),
    (done) =>
      analytics.track(
        { userId: "u1", event: "Order Completed", properties: { revenue: 12.5 } },
        done,
      ),
    (done) =>
      analytics.track(
        { anonymousId: "a1", event: "Product Viewed", properties: { sku: "é" } },
        done,
      ),
    (done) => analytics.page({ userId: "u1", category: "Shop", name: "Home" }, done),
    (done) => analytics.screen({ userId: "u1", category: "App", name: "Main" }, done),
    (done) => analytics.group({ userId: "u1", groupId: "g1", traits: { plan: "pro" } }, done),
    (done) => analytics.alias({ userId: "u1", previousId: "a1" }, done),
  ];
  for (const call of calls) await new Promise(call);
  await analytics.closeAndFlush();
  if (failures.length) throw new Error(JSON.stringify(failures));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
