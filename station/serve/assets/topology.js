// Reads the shipped TopoJSON of land and borders as lists of rings and lines, [lat, lon] as Leaflet wants them.

function decode(topology) {
  const { scale: [sx, sy], translate: [tx, ty] } = topology.transform;
  return topology.arcs.map((arc) => {
    let [x, y] = [0, 0];
    return arc.map(([dx, dy]) => {
      [x, y] = [x + dx, y + dy];
      return [y * sy + ty, x * sx + tx];
    });
  });
}

export function readTopology(topology) {
  const arcs = decode(topology);
  const line = (numbers) => numbers.flatMap((number, at) => {
    const points = number < 0 ? [...arcs[~number]].reverse() : arcs[number];
    return at ? points.slice(1) : points;
  });
  const { land, borders } = topology.objects;
  return { land: land.arcs.map((polygon) => polygon.map(line)), borders: borders.arcs.map(line) };
}
