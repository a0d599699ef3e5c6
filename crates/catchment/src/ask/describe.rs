//! `\d`: which tables there are, and what they hold.

use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::table;
use anyhow::Context;
use serde_json::{Value, json};

/// The tables.
pub(super) async fn tables(client: &Client) -> anyhow::Result<String> {
    let sql = "SELECT table_name AS \"table\" FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1";
    let answer = ask(client, sql).await?;
    Ok(format!("{}\n\\d NAME shows the columns of one\n", table::of_answer(&answer)))
}

/// The columns of a table, and of the events' data the fields that are known.
pub(super) async fn table(client: &Client, name: &str) -> anyhow::Result<String> {
    let sql = format!("SELECT * FROM \"{}\" LIMIT 0", name.replace('"', "\"\""));
    let answer = ask(client, &sql).await?;
    let cell = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns = answer["columns"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> =
        columns.iter().map(|column| vec![cell(&column["name"]), cell(&column["type"])]).collect();
    let mut text = format!("{}\n", table::of_rows(vec!["column".to_owned(), "type".to_owned()], &rows));
    if name != "events" {
        return Ok(text);
    }
    let known = client.fetched("/api/v1/fields").await?;
    let mut rows = Vec::new();
    for of_type in known["types"].as_array().into_iter().flatten() {
        for field in of_type["fields"].as_array().into_iter().flatten() {
            let values: Vec<String> = field["values"].as_array().into_iter().flatten().map(cell).collect();
            let told = [&of_type["type"], &field["name"], &field["type"]].map(cell);
            rows.push([told.to_vec(), vec![values.join(", ")]].concat());
        }
    }
    if rows.is_empty() {
        return Ok(text + "no fields of data are known yet\n");
    }
    let names = ["events of type", "field", "type", "values sent"].map(str::to_owned).to_vec();
    text += &format!("{}\n", table::of_rows(names, &rows));
    if known["partial"] == true {
        text += "there may be more fields\n";
    }
    Ok(text)
}

async fn ask(client: &Client, sql: &str) -> anyhow::Result<Value> {
    let arriving = client.answered("/api/v1/query", &json!({ "sql": sql }), "application/json").await?;
    Ok(arriving.whole(ANSWER_BYTES_MAX).await.context("the answer broke off")?.json()?)
}
