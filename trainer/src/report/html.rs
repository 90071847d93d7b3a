//! Pieces of a page that stands alone: style, tables, embedded pictures.

use crate::statistics::Interval;
use crate::svg::escape;
use anyhow::Result;
use base64::Engine as _;
use fovea::Frame;
use fovea::explain::{Map, overlay};
use fovea::prepare::Region;
use image::codecs::jpeg::JpegEncoder;

/// The largest width of an embedded picture in pixels.
const WIDTH: u32 = 420;

/// The page's head: no script, nothing from outside (the policy forbids both), readable on paper.
pub fn head(title: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <title>{0}</title>\n<style>\n\
         body{{font:16px/1.5 sans-serif;color:#111;background:#fff;max-width:1080px;margin:24px auto;padding:0 16px}}\n\
         table{{border-collapse:collapse;margin:12px 0}}th,td{{border:1px solid #bbb;padding:4px 10px;text-align:right}}\n\
         th:first-child,td:first-child{{text-align:left}}th{{background:#f0f0f0}}\n\
         .warn{{border:3px solid #d55e00;padding:10px 14px;font-weight:bold}}.say{{border-left:6px solid #0072b2;padding:8px 14px;background:#f2f8fc}}\n\
         .row{{display:flex;flex-wrap:wrap;gap:12px}}figure{{margin:14px 0;padding:10px;border:1px solid #bbb;break-inside:avoid}}\n\
         figure img{{max-width:32%;height:auto}}.small{{font-size:13px;color:#444}}.right{{background:#d6ecf8}}.wrong{{background:#fbe0cf}}\n\
         </style></head><body>\n<h1>{0}</h1>\n",
        escape(title)
    )
}

/// A share in per cent with its interval.
pub fn share(interval: Option<Interval>) -> String {
    match interval {
        None => "–".into(),
        Some(i) => format!("{:.1} % ({:.1} to {:.1})", i.value * 100.0, i.low * 100.0, i.high * 100.0),
    }
}

/// A measure from 0 to 1 with its interval.
pub fn measure(interval: Option<Interval>) -> String {
    match interval {
        None => "–".into(),
        Some(i) => format!("{:.3} ({:.3} to {:.3})", i.value, i.low, i.high),
    }
}

fn line<'a>(tag: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: String = cells.map(|c| format!("<{tag}>{c}</{tag}>")).collect();
    format!("<tr>{cells}</tr>\n")
}

/// A table; cells are taken as they are.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let body: String = rows.iter().map(|row| line("td", row.iter().map(String::as_str))).collect();
    format!("<table>\n{}{body}</table>\n", line("th", head.iter().copied()))
}

/// An `<img>` with a JPEG in it, made at most [`WIDTH`] wide; `rgb` holds `width x height` pixels.
fn embed(rgb: Vec<u8>, width: u32, height: u32, says: &str) -> Result<String> {
    let mut picture = image::RgbImage::from_raw(width, height, rgb)
        .ok_or_else(|| anyhow::anyhow!("a picture's buffer does not fit its size"))?;
    if width > WIDTH {
        let height = (u64::from(height) * u64::from(WIDTH) / u64::from(width)).max(1) as u32;
        picture = image::imageops::thumbnail(&picture, WIDTH, height);
    }
    let mut bytes = Vec::new();
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 85))?;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    Ok(format!("<img alt=\"{}\" src=\"data:image/jpeg;base64,{text}\">", escape(says)))
}

/// A frame as it is.
///
/// # Errors
/// When it cannot be encoded.
pub fn picture(frame: &Frame, says: &str) -> Result<String> {
    let rgb = frame.pixels().iter().flat_map(|&v| [v; 3]).collect();
    embed(rgb, frame.width(), frame.height(), says)
}

/// A frame with a heatmap over what the network saw of it.
///
/// # Errors
/// When it cannot be encoded.
pub fn heat(frame: &Frame, place: Region, map: &Map, says: &str) -> Result<String> {
    embed(overlay(frame, place, map), frame.width(), frame.height(), says)
}
