SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Schemas stand beside each operation; the list of all of them is long.
  defaultModelsExpandDepth: 0,
});
