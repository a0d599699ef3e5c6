// Shows the description of this collector. Nothing is asked of another address: there is no validator, and no bar to load others.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
