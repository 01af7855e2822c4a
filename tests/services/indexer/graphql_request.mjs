// Asks an indexer with graphql-request, the library inside iExec's clients: prints one JSON line per question.
// usage: node graphql_request.mjs <package.json beside node_modules> <origin> <owner> <request order hash>
import { createRequire } from 'node:module';

const [, , packages, origin, owner, requestorder] = process.argv;
const { GraphQLClient, gql, ClientError, request } = createRequire(packages)('graphql-request');
const data = `${origin}/subgraphs/name/arbitrum-sepolia/dataprotector-v2`;
const poco = `${origin}/subgraphs/name/arbitrum-sepolia/poco-v5`;

const protectedDatas = gql`
  query ($start: Int!, $range: Int!, $where: ProtectedData_filter) {
    protectedDatas(where: $where, skip: $start, first: $range, orderBy: creationTimestamp, orderDirection: desc) {
      id name owner { id } schema { id } creationTimestamp multiaddr
    }
  }
`;
const deals = gql`
  query ($where: Deal_filter) {
    deals(where: $where) { tasks { taskId: id bulkSlice { datasets { id } } } }
  }
`;
const collections = gql`
  query {
    collections(
      where: {
        owner: "${owner}",

      }
      orderBy: creationTimestamp
      orderDirection: asc
    ) {
      id
      owner { id }
      protectedDatas(orderBy: creationTimestamp orderDirection: desc where: {
        or: [{ isForSale: true } { isRentable: true } { isIncludedInSubscription: true }]
      }) { id saleParams { id price } rentalParams { price duration } rentals { renter, endDate } }
    }
    accounts(where: { collections_: { id_not: null } }, first: 10) { id }
    inCollections: protectedDatas(where: { isRentable: true, collection_not: "null" }) { id }
  }
`;

const questions = {
  all: () => request(data, protectedDatas, { start: 0, range: 1000, where: undefined }),
  mine: () =>
    request(data, protectedDatas, {
      start: 0,
      range: 1000,
      where: {
        and: [{ owner }, { creationTimestamp_gte: 1600000000 }, { schema_contains: ['email:string'] },
          { or: [{ schema_contains: ['email:string'] }, { schema_contains: ['x:bool'] }] }],
      },
    }),
  deals: () => new GraphQLClient(poco).request(deals, { where: { requestorder } }),
  sharing: () => request(data, collections),
  byUrl: () =>
    new GraphQLClient(data, { method: 'GET', jsonSerializer: JSON }).request(
      'query ($n: Int!) { protectedDatas(first: $n) { id } }',
      { n: 1 }
    ),
  batch: () =>
    new GraphQLClient(data)
      .rawRequest('{ _meta { block { number hash timestamp } } }')
      .then(({ status, data: found }) => ({ status, found })),
  refused: () =>
    request(data, '{ protectedDatas(first: 1001) { id } }').catch((error) => ({
      known: error instanceof ClientError,
      status: error.response.status,
      message: error.response.errors[0].message,
    })),
  missing: () =>
    request(data.replace('dataprotector-v2', 'nothing'), '{ x }').catch((error) => ({
      known: error instanceof ClientError,
      status: error.response.status,
    })),
};
for (const [name, ask] of Object.entries(questions)) {
  console.log(JSON.stringify({ name, answer: await ask() }));
}
