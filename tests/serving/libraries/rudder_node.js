// The scenario through @rudderstack/rudder-sdk-node: `node rudder_node.js HOST KEY`.
const Analytics = require("@rudderstack/rudder-sdk-node");

const [host, key] = process.argv.slice(2);
const Client = Analytics.default || Analytics;
const failures = [];
const client = new Client(key, {
  dataPlaneUrl: host,
  flushAt: 1,
  retryCount: 10,
  logLevel: "error",
  errorHandler: (error) => failures.push(error),
});

async function main() {
  const calls = [
    (done) => client.identify({ userId: "u1", traits: { email: "ann@example.com" } }, done),
    (done) =>
      client.track({ userId: "u1", event: "Order Completed", properties: { revenue: 12.5 } }, done),
    (done) =>
      client.track({ anonymousId: "a1", event: "Product Viewed", properties: { sku: "é" } }, done),
    (done) => client.page({ userId: "u1", category: "Shop", name: "Home" }, done),
    (done) => client.screen({ userId: "u1", category: "App", name: "Main" }, done),
    (done) => client.group({ userId: "u1", groupId: "g1", traits: { plan: "pro" } }, done),
    (done) => client.alias({ userId: "u1", previousId: "a1" }, done),
  ];
  for (const call of calls) {
    await new Promise((resolve, reject) =>
      call((error) => (error ? reject(error) : resolve())),
    );
  }
  await client.flush();
  if (failures.length) throw failures[0];
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
